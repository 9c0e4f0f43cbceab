"""Show the result of `toolchain cascade` on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.records.cascade import CascadeMade


def made(record: CascadeMade) -> None:
    """Print the thresholds that were tried, the one that was chosen, and the time of the cascade."""
    found = record["cascade"]
    table = titled(f"{record['bundle']}: thresholds, from the highest (safest) to the lowest")
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
        "passed on: fraction of the rows that the second stage gets; drop, bound: accuracy drop in points and its "
        f"upper bound, of which {found['max_drop_points']:g} points are allowed",
        f"the second stage gets {found['passed_on']:.0%} of the rows and {found['passed_on_tokens']:.0%} of the tokens",
        f"accuracy: first stage alone {accuracy['small']:.4f}, second alone {accuracy['big']:.4f}, cascade "
        f"{accuracy['cascade']:.4f}, on {found['calibrated_on']['n']:,} rows that the threshold was chosen on",
        f"time: {found['cost_ratio']:.2f} times that of the second stage alone (95 % interval {low:.2f} to "
        f"{high:.2f}); the first stage takes {found['first_cost']:.2f} times that of the second",
        f"next: {record['next']}",
    )
