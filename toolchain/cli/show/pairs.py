"""What a person reads of an energy comparison."""

import math
from typing import Any

from toolchain.cli.show import put, titled
from toolchain.energy import text
from toolchain.energy.pairs import BELOW_MDD, HOLDS_1, NO_BLOCK, TOO_FEW

Record = dict[str, Any]

SAME_POWER = 0.02
"""Power that differs by less is the same: energy is then nothing but time."""

MANY_BLOCKS = 100
"""More are no advice."""

WHY = {
    TOO_FEW: "fewer than 5 blocks do not tell how they vary",
    HOLDS_1: "the interval holds 1",
    BELOW_MDD: "it is less than could be detected",
    NO_BLOCK: "there is no block in which both were measured",
}


def compared_energy(record: Record) -> None:
    """Print contenders side by side, what to know before believing it, what is missing, and what to do next."""
    table = titled(_title(record), narrow=True)
    for heading in ("contender", "J/row [95 %]", "rows/s", "W", "ratio [95 %]", "MDD", "verdict"):
        table.add_column(heading, justify="left" if heading in ("contender", "verdict") else "right", no_wrap=True)
    baseline, *candidates = record["contenders"]
    table.add_row(*_figures(baseline), "-", "-", "baseline")
    for one, found in zip(candidates, record["comparisons"], strict=True):
        table.add_row(*_figures(one), _ratio(found), _percent(found["mdd_percent"]), found["verdict"])
    put(table, *_reading(record), *(f"note: {flag}" for flag in record["flags"]), *_missing(record))
    put(*(f"next: {line}" for line in _next(record)), f"kept in {record['file']}")


def _title(record: Record) -> str:
    rows = f"{record['task']} {record['split']}, {record['n']} rows"
    if not record["blocks"]:
        return f"Energy, {rows}: not measured"
    load = record["protocol"]["rate_per_s"]
    how = f"{load:g} rows/s" if load else "as fast as each goes"
    return f"Energy, {rows}: {len(record['blocks'])} blocks of {record['protocol']['window_s']:g} s, {how}"


def _figures(one: Record) -> list[str]:
    if one["per_inference_j"] is None:
        return [one["name"], f"n/a ({one['reason']})", "-", "-"]
    interval = " [{:#.4g}, {:#.4g}]".format(*one["ci95"]) if one["ci95"] else ""
    return [
        one["name"],
        f"{one['per_inference_j']:#.4g}{interval}",
        f"{one['throughput_per_s']:,.0f}",
        f"{one['mean_power_w']:.1f}",
    ]


def _ratio(found: Record) -> str:
    if found["ratio"] is None:
        return "-"
    interval = found["ratio_ci95"]
    return f"{found['ratio']:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} %"


def _reading(record: Record) -> list[str]:
    return [line for found in record["comparisons"] for line in _sentences(found)]


def _sentences(found: Record) -> list[str]:
    """Return what a comparison says, and whether it is only its speed that does."""
    name = found["candidate_name"]
    if found["ratio"] is None:
        return [f"{name}: not compared: {_why(found['reason'])}"]
    side = "less" if found["ratio"] < 1 else "more"
    lines = [f"{name}: {abs(found['difference_percent']):.1f} % {side} energy a row than {found['baseline_name']}"]
    if found["reason"]:
        lines = [f"{name}: not resolved: {_why(found['reason'])}"]
    lines[0] += f"; {found['throughput_ratio']:.3f} times the rows/s at {found['mean_power_ratio']:.3f} times the power"
    if not found["reason"] and abs(found["mean_power_ratio"] - 1) < SAME_POWER:
        lines.append(f"{name}: both draw the same power, as at its cap: the energy differs as the speed does")
    if found["dropped"]:
        lines.append(f"{name}: blocks left out, as a window in them was dropped: {found['dropped']}")
    return lines


def _why(code: str) -> str:
    return WHY.get(code) or text.reason(code)


def _missing(record: Record) -> list[str]:
    parts = record["components"].items()
    return [f"not measured: {name}: {text.reason(part['reason'])}" for name, part in parts if part["reason"]]


def _next(record: Record) -> list[str]:
    if not record["blocks"]:
        return ["toolchain doctor says what this machine can measure, and what would make it measure more"]
    doubtful = [found for found in record["comparisons"] if found["ratio"] is not None and found["reason"]]
    lines = [
        f"about {more} blocks would tell for {found['candidate_name']}: --energy-windows {more}"
        for found in doubtful
        if (more := _blocks(found))
    ]
    places = dict.fromkeys(one["bundle"] for one in record["contenders"])
    return [*lines, f"what it costs in accuracy: toolchain compare {' '.join(places)}"]


def _blocks(found: Record) -> int | None:
    """Return about how many blocks would resolve a difference of this size: what is detected falls with their root."""
    if found["reason"] == TOO_FEW:
        return 10
    size = math.log(found["ratio"])
    detected = math.log1p(math.copysign(found["mdd_percent"], size) / 100)
    needed = math.ceil(found["blocks"] * (detected / size) ** 2) + 1 if size else MANY_BLOCKS + 1
    return needed if needed <= MANY_BLOCKS else None
