"""Show the result of `toolchain shrink` on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.records.shrink import Shrunk


def shrunk(found: Shrunk) -> None:
    """Print the sizes before and after, the steps and loss of the training, and the accuracy of the result."""
    record = found["shrink"]
    table = titled(f"{found['checkpoint']}: distilled from {record['teacher']['id']}")
    for heading in ("", "original", "result"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, sizes in (
        ("layers", record["layers"]),
        ("feed-forward width", record["ffn"]),
        ("weights", record["parameters"]),
    ):
        table.add_row(name, f"{sizes['before']:,}", f"{sizes['after']:,}")
    table.add_row("multiplications", "1.00", f"{record['macs_ratio']:.2f}")
    loss = record["loss"]
    lines = [
        f"{record['steps']:,} steps over {record['rows_seen']:,} rows in {record['seconds']:,.0f} s; loss "
        f"{loss['first']:.4f} at first, {loss['last']:.4f} at last"
    ]
    if scores := record["scores"]:
        table.add_row(scores["metric"], f"{scores['original']:.4f}", f"{scores['shrunk']:.4f}")
        lines.append(
            f"{scores['metric']} on {scores['n']:,} rows; the cut model had {scores['cut']:.4f} before training"
        )
    if gate := found.get("gate"):
        lines.append(f"drop {gate['drop_points']:.2f} points, limit {gate['max_drop_points']:g}: {gate['verdict']}")
    put(table, *lines, f"next: {found['next']}")
