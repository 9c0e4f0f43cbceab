"""What a person reads on the terminal about engines, and about the machine that runs them."""

from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from toolchain.show import put


def explained_plan(found: dict[str, Any]) -> None:
    """Print what an engine became, and advice."""
    table = Table(title=f"{found['artefact']}", title_justify="left", box=SIMPLE)
    table.add_column("what")
    table.add_column("found")
    layers = found["layers"]
    sm = f"{found['sm'] // 10}.{found['sm'] % 10}"
    table.add_row("built for", f"{found['gpu']}, compute capability {sm}, TensorRT {found['tensorrt']}")
    table.add_row("precision", f"{found['precision']}, {found['layout']}, attention {found['options']['attention']}")
    for profile in found["profiles"]:
        table.add_row("profile", f"batch {profile['batch']}, length {profile['length']}")
    for key in ("by_type", "by_precision"):
        table.add_row(
            key.replace("_", " "), ", ".join(f"{name} {count}" for name, count in (layers[key] or {}).items())
        )
    for key in ("layers", "products", "int8_products", "fused_attention", "reformats"):
        table.add_row(key.replace("_", " "), "not known" if layers[key] is None else str(layers[key]))
    table.add_row("missing scales", str(found["missing_scales"]))
    put(table, *found["advice"])


def accepted(record: dict[str, Any]) -> None:
    """Print every check, and where the report is."""
    table = Table(title=f"{record['gpu']}, {record['tag']}", title_justify="left", box=SIMPLE)
    for heading in ("check", "outcome", "found", "s"):
        table.add_column(heading, justify="right" if heading == "s" else "left")
    for check in record["checks"]:
        table.add_row(check["name"], check["outcome"], check["detail"], f"{check['seconds']:g}")
    put(table, f"send in: {' and '.join(record['files'])}")
