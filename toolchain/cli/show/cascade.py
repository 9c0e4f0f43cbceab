"""A cascade that was made."""

from toolchain.cli.show import put, titled
from toolchain.records.cascade import CascadeMade


def made(record: CascadeMade) -> None:
    """Print the thresholds that were tried, the one that was chosen, and what it saves."""
    found = record["cascade"]
    table = titled(f"{record['bundle']}: thresholds, from the safest down")
    for heading in ("threshold", "passed on", "drop", "bound", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found["tried"]:
        bound = "" if one["bound_points"] is None else f"{one['bound_points']:.2f}"
        table.add_row(
            f"{one['threshold']:.3f}", f"{one['passed_on']:.0%}", f"{one['drop_points']:.2f}", bound, one["verdict"]
        )
    accuracy, (low, high) = found["accuracy"], found["cost_ratio_ci95"]
    put(
        table,
        f"drop and its upper bound in points; {found['max_drop_points']:g} are allowed",
        f"the second stage gets {found['passed_on']:.0%} of the rows and {found['passed_on_tokens']:.0%} of the tokens",
        f"first stage alone {accuracy['small']:.4f}, second alone {accuracy['big']:.4f}, cascade "
        f"{accuracy['cascade']:.4f}, on {found['calibrated_on']['n']:,} rows that the threshold was chosen on",
        f"time: {found['cost_ratio']:.2f} of the second stage alone ({low:.2f} to {high:.2f}), of which the first "
        f"stage takes {found['first_cost']:.2f}",
        f"next: {record['next']}",
    )
