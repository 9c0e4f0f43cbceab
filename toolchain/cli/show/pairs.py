"""Show an energy comparison on the terminal."""

import math

from toolchain.cli.show import put, titled
from toolchain.energy.compare.pairs import BELOW_MDD, HOLDS_1, NO_BLOCK, TOO_FEW
from toolchain.energy.text import reason
from toolchain.records.energy_comparison import ContenderRecord, EnergyComparison, PairRecord, SavedEnergyComparison

# Two powers count as equal if their ratio differs from 1 by less than this fraction. The throughput then explains the
# whole difference in energy.
SAME_POWER = 0.02

# Most blocks that are recommended to the user. More blocks would take too long to measure.
MANY_BLOCKS = 100

# Reason code -> its text; `toolchain.energy.text` has the others.
WHY = {
    TOO_FEW: "fewer than 5 blocks are too few for an interval",
    HOLDS_1: "the interval contains 1",
    BELOW_MDD: "the difference is below the minimum detectable difference",
    NO_BLOCK: "there is no block in which both were measured",
}

LEGEND = "ratio: energy per row, divided by that of the baseline; MDD: minimum difference that these blocks can detect"


def compared_energy(record: SavedEnergyComparison) -> None:
    """Print a table of the contenders, each a bundle on a backend.

    Then print a line for each comparison, notes, the components that were not measured, and the next steps.
    """
    table = titled(_title(record), narrow=True)
    for heading in ("contender", "J/row [95 %]", "rows/s", "W", "ratio [95 %]", "MDD", "verdict"):
        table.add_column(heading, justify="left" if heading in ("contender", "verdict") else "right", no_wrap=True)
    baseline, *candidates = record["contenders"]
    table.add_row(*_figures(baseline), "-", "-", "baseline")
    for one, found in zip(candidates, record["comparisons"], strict=True):
        table.add_row(*_figures(one), _ratio(found), _percent(found["mdd_percent"]), found["verdict"])
    put(table, LEGEND, *_reading(record), *(f"note: {flag}" for flag in record["flags"]), *_missing(record))
    put(*(f"next: {line}" for line in _next(record)), f"written to {record['file']}")


def _title(record: EnergyComparison) -> str:
    rows = f"{record['task']} {record['split']}, {record['n']} rows"
    if not record["blocks"]:
        return f"Energy, {rows}: not measured"
    load = record["protocol"]["rate_per_s"]
    how = f"{load:g} rows/s" if load else "each at its full throughput"
    return f"Energy, {rows}: {len(record['blocks'])} blocks of {record['protocol']['window_s']:g} s, {how}"


def _figures(one: ContenderRecord) -> list[str]:
    if one["per_inference_j"] is None:
        return [one["name"], f"n/a ({one['reason']})", "-", "-"]
    interval = " [{:#.4g}, {:#.4g}]".format(*one["ci95"]) if one["ci95"] else ""
    return [
        one["name"],
        f"{one['per_inference_j']:#.4g}{interval}",
        f"{one['throughput_per_s'] or 0:,.0f}",
        f"{one['mean_power_w'] or 0:.1f}",
    ]


def _ratio(found: PairRecord) -> str:
    if found["ratio"] is None:
        return "-"
    interval = found["ratio_ci95"]
    return f"{found['ratio']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _reading(record: EnergyComparison) -> list[str]:
    return [line for found in record["comparisons"] for line in _sentences(found)]


def _sentences(found: PairRecord) -> list[str]:
    """Return lines with the result of a comparison, and whether the throughput alone explains it."""
    name = found["candidate_name"]
    if found["ratio"] is None:
        return [f"{name}: not compared: {why(found['reason'])}"]
    side = "less" if found["ratio"] < 1 else "more"
    lines = [
        f"{name}: {abs(found['difference_percent'] or 0):.1f} % {side} energy per row than {found['baseline_name']}"
    ]
    if found["reason"]:
        lines = [f"{name}: not resolved: {why(found['reason'])}"]
    lines[0] += f"; {found['throughput_ratio']:.3f} times the rows/s at {found['mean_power_ratio']:.3f} times the power"
    if not found["reason"] and found["mean_power_ratio"] and abs(found["mean_power_ratio"] - 1) < SAME_POWER:
        lines.append(f"{name}: both draw the same power, as at a power cap: the throughput explains the difference")
    if found["dropped"]:
        lines.append(f"{name}: blocks left out because a window in them was dropped: {found['dropped']}")
    return lines


def why(code: str | None) -> str:
    """Return the text for a reason code: why a difference is not resolved."""
    return WHY.get(code or "") or reason(code)


def _missing(record: EnergyComparison) -> list[str]:
    parts = record["components"].items()
    return [f"not measured: {name}: {reason(part['reason'])}" for name, part in parts if part["reason"]]


def _next(record: EnergyComparison) -> list[str]:
    if not record["blocks"]:
        return ["toolchain doctor says what this machine can measure, and what it lacks"]
    doubtful = [found for found in record["comparisons"] if found["ratio"] is not None and found["reason"]]
    lines = [
        f"about {more} blocks would resolve {found['candidate_name']}: --energy-windows {more}"
        for found in doubtful
        if (more := _blocks(found))
    ]
    places = dict.fromkeys(one["bundle"] for one in record["contenders"])
    return [*lines, f"the accuracy of each: toolchain compare {' '.join(places)}"]


def _blocks(found: PairRecord) -> int | None:
    """Return roughly how many blocks are needed to resolve a difference of this size; None if more than MANY_BLOCKS.

    The minimum detectable difference falls with the square root of the number of blocks.
    """
    if found["reason"] == TOO_FEW or found["ratio"] is None or found["mdd_percent"] is None:
        return 10
    size = math.log(found["ratio"])
    detected = math.log1p(math.copysign(found["mdd_percent"], size) / 100)
    needed = math.ceil(found["blocks"] * (detected / size) ** 2) + 1 if size else MANY_BLOCKS + 1
    return needed if needed <= MANY_BLOCKS else None
