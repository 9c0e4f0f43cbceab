"""The costs that a sweep can have as objectives, such as latency: how to read each from a result, with an interval."""

from collections.abc import Callable
from dataclasses import dataclass

from toolchain.records.energy import EnergyBlock
from toolchain.records.result import Result
from toolchain.records.sweep import CellRun

# Two median latencies, or two throughputs, count as equal if they differ by less than this fraction. It was chosen and
# not measured: results have no confidence interval of times, and their variation between runs depends on the machine.
# `python benchmarks/sweep.py --noise 6`, on one of two cores while the other was busy, gave a largest / smallest ratio
# of 1.33 for the median latency and 1.22 for the throughput.
TIME_NOISE = 0.1

# A value, and the lower and upper end of its interval.
Ends = tuple[float, float, float]


@dataclass(frozen=True)
class Cost:
    """A cost, such as latency: its label and key for plots, and a function that reads its value from a result.

    The function `ends` returns the value with both ends of its interval, or None if the cost was not measured. `less`
    is True if a smaller value is better.
    """

    label: str
    key: str
    ends: Callable[[Result, CellRun], Ends | None]
    less: bool = True


def joules_ends(block: EnergyBlock) -> Ends | None:
    """Return the energy per row in J with the ends of its 95 % interval, or of its range over a few windows.

    The result is None if the energy was not measured.
    """
    each, ends = block["per_inference_j"], block["ci95"] or block["range"]
    return None if each is None or ends is None else (each, ends[0], ends[1])


def counted_in(cost: str, result: Result) -> list[str] | None:
    """Return the sorted names of the components that a result's total energy includes; None if `cost` is not energy.

    Two totals are comparable only if they include the same components, such as the GPU or the processor.
    """
    if cost != "energy":
        return None
    parts = result["energy"]["components"].items()
    return sorted(name for name, part in parts if part["counted"] and part["joules"] is not None)


def _noisy(value: float) -> Ends:
    """Return a time or a throughput with the ends of an interval of +-TIME_NOISE / 2 around it.

    So the intervals of two values overlap if the values differ by about TIME_NOISE or less.
    """
    return value, value * (1 - TIME_NOISE / 2), value * (1 + TIME_NOISE / 2)


def _size(_: Result, run: CellRun) -> Ends | None:
    return None if run["size_mb"] is None else (run["size_mb"],) * 3


COSTS = {
    "energy": Cost("energy per row, J", "energy.per_inference_j", lambda result, _: joules_ends(result["energy"])),
    "latency": Cost("median latency, ms", "latency_ms.p50", lambda result, _: _noisy(result["latency_ms"]["p50"])),
    "throughput": Cost("rows/s", "throughput_per_s", lambda result, _: _noisy(result["throughput_per_s"]), less=False),
    "size": Cost("size of the model, MB", "size_mb", _size),
}
