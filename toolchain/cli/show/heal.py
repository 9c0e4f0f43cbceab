"""Show the result of `toolchain heal` on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.heads.distance import Distance
from toolchain.records.heal import Healed


def healed(found: Healed) -> None:
    """Print the accuracy gate of each graph before and after, and what the rounding and the training changed."""
    table = titled(f"{found['bundle']}: the gate")
    for heading in ("graph", "", "drop, points", "verdict"):
        table.add_column(heading, justify="right" if heading == "drop, points" else "left")
    for text, comparisons in (("before", found["before"]), ("after", found.get("gate", []))):
        for one in comparisons:
            table.add_row(one["candidate_name"], text, f"{one['drop_points']:.2f}", str(one["verdict"]))
    record = found["heal"]
    if record is None:
        put(table, "the gate passes already, so nothing needs healing")
        return
    moved = [
        f"{file}: {Distance(**one['before']).rank:.3g} to {Distance(**one['after']).rank:.3g}"
        for file, one in record["distance"].items()
    ]
    rounding, loss = record["rounding"], record["loss"]
    lines = [
        f"{rounding['gemms']} GEMMs rounded with {rounding['rows']:,} train rows in "
        f"{rounding['seconds'] / 60:.1f} minutes"
    ]
    if loss:
        lines.append(
            f"{record['steps']:,} training steps on {record['rows']:,} train rows in "
            f"{record['seconds'] / 60:.1f} minutes; loss {loss['first']:.4f} to {loss['last']:.4f}"
        )
    lines += [f"{file} keeps its weights: {why}" for file, why in record.get("kept", {}).items()]
    lines.append(f"distance from FP32 on {record['held_out']} held-out train rows: {'; '.join(moved)}")
    put(table, *lines, f"next: {found['deploy']['next']}" if "deploy" in found else "")
