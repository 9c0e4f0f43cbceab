"""Show the record of `toolchain power` on the terminal.

It is printed to stderr, because stdout belongs to the measured command.
"""

import itertools
import shutil
import sys
from collections import deque
from collections.abc import Callable, Sequence

from rich.table import Table

from toolchain.cli.show import put, titled
from toolchain.energy.text import reason
from toolchain.meters.readings import TOO_SHORT
from toolchain.meters.sources import MEMORY
from toolchain.records.power import PowerRecord

BARS = "▁▂▃▄▅▆▇█"

LEGEND = (
    "J: energy; W: power; how: nvml_counter and rapl are energy counters of the hardware; any other method reads the "
    "power many times a second"
)

# Most bars in a line. `live` adds one bar each second.
MOST_BARS = 60


def recorded(record: PowerRecord, *, file: str | None = None) -> None:
    """Print a record: components, total, power over time, notes, and the next step."""
    if file:
        after = f"written to {file}"
    elif record["command"] is None:
        after = "next: toolchain power -- COMMAND measures a command; -o FILE.svg plots it"
    else:
        after = "next: toolchain power -o FILE.svg -- COMMAND plots it; .csv and .json have the samples"
    if record["command"] is None and sys.stderr.isatty():
        put("", stderr=True)  # ends the line of `live`, which has no line break
    put(
        _table(record),
        LEGEND,
        _total(record),
        *_power(record),
        *(f"note: {flag}" for flag in record["flags"]),
        after,
        stderr=True,
    )


def _table(record: PowerRecord) -> Table:
    table = titled("Energy")
    for heading in ("component", "J", "mean W", "peak W", "how"):
        text = heading in ("component", "how")
        table.add_column(heading, justify="left" if text else "right", no_wrap=heading != "how")
    for name, one in record["components"].items():
        if one["joules"] is None:
            table.add_row(name, "n/a", "n/a", "n/a", f"not measured: {reason(one['reason'])}")
            continue
        whole = one.get("part_of")
        part = f"part of {whole}" if whole else None if one["counted"] else "not in the total"
        how = ", ".join(filter(None, (one["method"], part, one["detail"])))
        figures = (one["joules"], one["mean_power_w"], one["peak_power_w"])
        table.add_row(name, *("n/a" if value is None else f"{value:.4g}" for value in figures), how)
    return table


def _total(record: PowerRecord) -> str:
    if record["total_j"] is None:
        too_short = any(one["reason"] == TOO_SHORT for one in record["components"].values())
        why = "that was too short" if too_short else "`toolchain doctor` says what this machine lacks"
        return f"nothing could be measured in {record['seconds']:.4g} s; {why}"
    missing = [name for name, one in record["components"].items() if one["counted"] and one["joules"] is None]
    return (
        f"total {record['total_j']:.4g} J in {record['seconds']:.4g} s: mean {record['mean_power_w']:.4g} W, "
        f"peak {record['peak_power_w']:.4g} W; "
        f"error at the start and end of the measurement: up to {record['relative_edge_error'] or 0:.2%}"
        + (f"; without {', '.join(missing)}" if missing else "")
    )


def _power(record: PowerRecord) -> list[str]:
    """Return a line with a bar chart of the power over time, summed over the components in the total.

    Return nothing if the record has no samples.
    """
    samples = record["samples"]
    if samples is None:
        return []
    names = [name for name, one in record["components"].items() if one["counted"] and one["joules"] is not None]
    watts = [sum(step) for step in zip(*(samples[f"{name}_w"] for name in names), strict=True)]
    return [f"power {bars(_shortened(watts))} {_range(watts)}"] if watts else []


def _shortened(values: Sequence[float]) -> list[float]:
    """Divide the values into at most MOST_BARS equal parts, and return the mean of each part."""
    count = min(MOST_BARS, len(values))
    bounds = [len(values) * number // count for number in range(count + 1)]
    parts = [values[start:end] for start, end in itertools.pairwise(bounds)]
    return [sum(part) / len(part) for part in parts]


def bars(values: Sequence[float]) -> str:
    """Return a text with a bar for each value, on a scale from 0 to the highest value."""
    highest = max(values, default=0) or 1
    return "".join(BARS[min(int(value / highest * len(BARS)), len(BARS) - 1)] for value in values)


def _range(watts: Sequence[float]) -> str:
    return f"{min(watts):.4g} to {max(watts):.4g} W"


def live() -> Callable[[float, dict[str, float | None]], None]:
    """Return the function that prints the power of each second of `power.watch`.

    On a terminal it overwrites its line; elsewhere it prints a line each second.
    """
    past: deque[float] = deque(maxlen=MOST_BARS)

    def draw(seconds: float, power_w: dict[str, float | None]) -> None:
        shown = {name: watts for name, watts in power_w.items() if watts is not None}
        if shown:
            past.append(sum(watts for name, watts in shown.items() if name != MEMORY))
        line = "  ".join([f"{seconds:6.0f} s", *(f"{name} {watts:.1f} W" for name, watts in shown.items()), bars(past)])
        columns = shutil.get_terminal_size().columns
        sys.stderr.write(f"\r\033[K{line[: columns - 1]}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()

    return draw
