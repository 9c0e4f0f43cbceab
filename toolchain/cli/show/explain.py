"""Why a graph or an engine is not faster or not accurate."""

from typing import Any

from rich.table import Table

from toolchain.cli.show import folded, put, titled
from toolchain.records.quantization import ScaleRecord
from toolchain.tensors import INT8_LEVELS


def explained(found: dict[str, Any]) -> None:
    """Print what stays out of integers and why, what is clipped, where the error is, the speed, and advice."""
    work, speed = found["share_of_macs"], found["speed"]
    lines = [
        f"{found['artefact']}, on {found['rows']}, compared with {found['reference']}",
        f"work in integers: {work['integers']:.1%} by the graph, {work['tensorrt']:.1%} as TensorRT wants it "
        f"(int8, zero point 0), {work['on_this_cpu']:.1%} on this CPU",
    ]
    for title, kinds in (("in the graph", "graph"), ("as this CPU runs it", "on_this_cpu")):
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(found["conversions"][kinds].items()))
        lines.append(f"nodes that only convert, {title}: {counts or 'none'}")
    if found["smoothing_muls"]:
        lines.append(f"SmoothQuant added {found['smoothing_muls']} Mul nodes")
    if speed:
        lines.append(
            f"speed-up over FP32 on this CPU: {speed['measured']:.2f} measured, {speed['predicted_best']:.2f} "
            f"at best ({speed['products_share_of_fp32_time']:.0%} of FP32's time is products, integer ones "
            f"are {speed['integer_to_float_product_speed']:.1f} times as fast)"
        )
    put(*lines, *_uncovered(found["products"]), *_noisy(found["products"]))
    put(*_clipped(found["clipped"]), *_scales(found["scales"]))
    put(*(f"advice: {line}" for line in found["advice"]))


def explained_plan(found: dict[str, Any]) -> None:
    """Print what an engine became, and advice."""
    table = titled(found["artefact"])
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


def _uncovered(products: list[dict[str, Any]]) -> list[Table]:
    """Return a table of the products that are not in integers everywhere, those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for one in products:
        if one["reason"]:
            where = "TensorRT and this CPU" if not one["integers"] else "TensorRT" if one["on_this_cpu"] else "this CPU"
            reasons.setdefault(f"{where}: {one['reason']}", []).append(one["name"])
    if not reasons:
        return []
    table = titled("Not in integers")
    table.add_column("where, and why", overflow="fold")
    table.add_column("products", overflow="fold")
    for reason, names in reasons.items():
        table.add_row(reason, ", ".join(folded(names)))
    return [table]


def _noisy(products: list[dict[str, Any]]) -> list[Table]:
    """Return a table of the products with the largest error."""
    measured = sorted((one for one in products if one["snr_db"] is not None), key=lambda one: float(one["snr_db"]))
    if not measured:
        return []
    table = _ranking("Largest error at the output", "product", "signal to noise, dB", "share of the work")
    for one in measured[:5]:
        table.add_row(one["name"], f"{one['snr_db']:.1f}", f"{one['macs']:.1%}")
    return [table]


def _clipped(tensors: list[dict[str, Any]]) -> list[Table]:
    """Return a table of the tensors with values beyond their range."""
    if not tensors:
        return []
    title = f"Clipped ({len(tensors)} tensors)"
    table = _ranking(title, "tensor", "values beyond the range", "largest, to the range")
    for one in tensors[:10]:
        table.add_row(one["tensor"], f"{one['share']:.3%}", f"{one['reach']:.1f}")
    return [table]


def _scales(scales: list[ScaleRecord]) -> list[Table]:
    """Return a table of the largest scales: the measured amax, and the scale that the graph holds."""
    if not scales:
        return []
    table = _ranking(f"Largest scales (of {len(scales)} tensors)", "tensor", "amax", "amax / 127", "in the graph")
    for one in sorted(scales, key=lambda one: -one["scale"])[:5]:
        amax = one["amax"]
        measured = ("-", "-") if amax is None else (f"{amax:.6g}", f"{amax / INT8_LEVELS:.6g}")
        table.add_row(one["tensor"], *measured, f"{one['scale']:.6g}")
    return [table]


def _ranking(title: str, what: str, *numbers: str) -> Table:
    table = titled(title)
    table.add_column(what)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table
