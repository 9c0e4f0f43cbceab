"""What used how much, on stderr: stdout is the command's."""

import itertools
import shutil
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rich.table import Table

from toolchain.cli.show import put, titled
from toolchain.energy import text as words
from toolchain.meters.sources import MEMORY
from toolchain.meters.track import TOO_SHORT

BARS = "▁▂▃▄▅▆▇█"
WIDE = 60
"""Bars of a line; as `watch` draws it, one a second."""


def recorded(record: dict[str, Any], *, file: str | None = None) -> None:
    """Print a record: the components, the total, the power over time, and what to know or to do next."""
    if file:
        after = f"kept in {file}"
    elif record["command"] is None:
        after = "next: toolchain power -- COMMAND measures a command; -o FILE.svg draws it"
    else:
        after = "next: toolchain power -o FILE.svg -- COMMAND draws it; .csv and .json keep the samples"
    if record["command"] is None and sys.stderr.isatty():
        put("", stderr=True)  # the line of `live` has no end
    put(
        _table(record),
        _total(record),
        *_power(record),
        *(f"note: {flag}" for flag in record["flags"]),
        after,
        stderr=True,
    )


def _table(record: dict[str, Any]) -> Table:
    table = titled("Energy")
    for heading in ("component", "J", "mean W", "peak W", "how"):
        text = heading in ("component", "how")
        table.add_column(heading, justify="left" if text else "right", no_wrap=heading != "how")
    for name, one in record["components"].items():
        if one["joules"] is None:
            table.add_row(name, "n/a", "n/a", "n/a", f"not measured: {words.reason(one['reason'])}")
            continue
        part = f"part of {one['part_of']}" if one["part_of"] else None if one["counted"] else "not in the total"
        how = ", ".join(filter(None, (one["method"], part, one["detail"])))
        table.add_row(name, *(f"{one[key]:.4g}" for key in ("joules", "mean_power_w", "peak_power_w")), how)
    return table


def _total(record: dict[str, Any]) -> str:
    if record["total_j"] is None:
        too_short = any(one["reason"] == TOO_SHORT for one in record["components"].values())
        why = "it was too short" if too_short else "what this machine lacks: toolchain doctor"
        return f"nothing could be measured in {record['seconds']:.4g} s; {why}"
    without = [name for name, one in record["components"].items() if one["counted"] and one["joules"] is None]
    return (
        f"total {record['total_j']:.4g} J in {record['seconds']:.4g} s: mean {record['mean_power_w']:.4g} W, "
        f"peak {record['peak_power_w']:.4g} W; uncertain by up to {record['relative_edge_error'] or 0:.2%} for its ends"
        + (f"; without {', '.join(without)}" if without else "")
    )


def _power(record: dict[str, Any]) -> list[str]:
    """Return the power of what is in the total, over time."""
    samples = record["samples"]
    if samples is None:
        return []
    names = [name for name, one in record["components"].items() if one["counted"] and one["joules"] is not None]
    watts = [sum(step) for step in zip(*(samples[f"{name}_w"] for name in names), strict=True)]
    return [f"power {bars(_shortened(watts))} {_range(watts)}"] if watts else []


def _shortened(values: Sequence[float]) -> list[float]:
    """Return means of equal parts, so that there are no more than fit."""
    count = min(WIDE, len(values))
    bounds = [len(values) * number // count for number in range(count + 1)]
    parts = [values[start:end] for start, end in itertools.pairwise(bounds)]
    return [sum(part) / len(part) for part in parts]


def bars(values: Sequence[float]) -> str:
    """Return a bar for each value, from 0 to the highest of them."""
    highest = max(values, default=0) or 1
    return "".join(BARS[min(int(value / highest * len(BARS)), len(BARS) - 1)] for value in values)


def _range(watts: Sequence[float]) -> str:
    return f"{min(watts):.4g} to {max(watts):.4g} W"


def live() -> Callable[[float, dict[str, float | None]], None]:
    """Return what draws a second of `power.watch`: one line that stays where it is, or in a file a line each."""
    past: deque[float] = deque(maxlen=WIDE)

    def draw(seconds: float, power_w: dict[str, float | None]) -> None:
        shown = {name: watts for name, watts in power_w.items() if watts is not None}
        if shown:
            past.append(sum(watts for name, watts in shown.items() if name != MEMORY))
        line = "  ".join([f"{seconds:6.0f} s", *(f"{name} {watts:.1f} W" for name, watts in shown.items()), bars(past)])
        wide = shutil.get_terminal_size().columns
        sys.stderr.write(f"\r\033[K{line[: wide - 1]}" if sys.stderr.isatty() else f"{line}\n")
        sys.stderr.flush()

    return draw
