"""The figures of a comparison by name, the targets for some of them, and the verdicts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from contenders import BEFORE, DYNAMIC, INT8_OF_OTHERS, ORT, ORT_CPU, ORT_INT8, PIPELINE, TORCH_BF16
from interleave import Ratio, ratio
from speed import Speed

FASTER = "rows per second"
BELOW, OUTSIDE = "points below the pipeline", "share of time outside the runtime"
# Pairs of contenders whose ratio of rows/s is also a figure. Both run the same batches.
AGAINST = ((ORT_INT8, DYNAMIC), (ORT_CPU, ORT))
# Names of two figures. The best of ours is our contender with the highest throughput in the run; it is compared with
# the fastest INT8 that other tools make, and with the earlier version of this project.
BEST = f"the best of ours / the best INT8 of other tools, {FASTER}"
BEST_BEFORE = f"the best of ours / {BEFORE}, {FASTER}"


@dataclass(frozen=True)
class Target:
    """A target: the name of a figure and its bound.

    The bound is the largest accepted value if `most` is true, and otherwise the smallest. If `needs` names a CPU flag,
    the target applies only to CPUs that have it.
    """

    figure: str
    bound: float
    most: bool = False
    needs: str | None = None


TARGETS = (
    Target(f"{ORT_INT8} / {PIPELINE} FP32 at batch 32, {FASTER}", 5.0),
    Target(f"{TORCH_BF16} / {PIPELINE} FP32 at batch 32, {FASTER}", 4.0, needs="amx_bf16"),
    Target(f"{ORT_INT8} / {DYNAMIC}, {FASTER}", 1.1),
    Target(f"{ORT_CPU} / {ORT}, {FASTER}", 1.1),
    Target(BEST, 1.15),
    Target(BEST_BEFORE, 1.18),
    Target(f"{ORT_INT8}, {OUTSIDE}", 0.10, most=True),
    Target(f"{ORT_INT8}, {BELOW}", 0.5, most=True),
)


@dataclass(frozen=True)
class Verdict:
    """A target, the measured value or None, and whether the target is met.

    `met` is None if the figure was not measured or the target does not apply. `word` is the verdict in words.
    """

    target: Target
    found: float | None
    met: bool | None
    word: str


def ratios(speed: Speed) -> dict[str, Ratio]:
    """Return figure -> ratio, for all figures of a comparison that are ratios of rows/s."""
    found = {
        f"{row.name} / {PIPELINE} FP32 at batch 32, {FASTER}": row.to_pipeline
        for row in speed.rows
        if row.name != PIPELINE
    }
    for fast, slow in AGAINST:
        if {fast, slow} <= speed.calls.keys():
            found[f"{fast} / {slow}, {FASTER}"] = ratio(speed.calls[slow], speed.calls[fast])
    ours, others = _fastest(speed, (row.name for row in speed.rows if row.ours)), _fastest(speed, INT8_OF_OTHERS)
    if ours and others:
        found[BEST] = ratio(speed.calls[others], speed.calls[ours])
    if ours and BEFORE in speed.calls:
        found[BEST_BEFORE] = ratio(speed.calls[BEFORE], speed.calls[ours])
    return found


def _fastest(speed: Speed, names: Iterable[str]) -> str | None:
    """Return the name of the contender with the highest rows/s among `names`; None if none of them ran."""
    wanted = {*names}
    found = {row.name: row.rows_per_s for row in speed.rows if row.name in wanted}
    return max(found, key=found.__getitem__, default=None)


def figures(speed: Speed) -> dict[str, float]:
    """Return figure -> value, for all figures of a comparison."""
    found = {name: one.median for name, one in ratios(speed).items()}
    for row in speed.rows:
        found[f"{row.name}, rows/s"] = row.rows_per_s
        found[f"{row.name}, accuracy"] = row.accuracy
        found[f"{row.name}, {BELOW}"] = row.points_below
        if row.outside is not None:
            found[f"{row.name}, {OUTSIDE}"] = row.outside
    return found


def judge(found: Mapping[str, float], flags: frozenset[str], targets: Iterable[Target] = TARGETS) -> list[Verdict]:
    """Return the verdict for each target. `found` maps a figure to its value, and `flags` are the CPU's flags."""
    return [_verdict(target, found.get(target.figure), flags) for target in targets]


def _verdict(target: Target, found: float | None, flags: frozenset[str]) -> Verdict:
    if found is None:
        return Verdict(target, None, None, "not measured")
    if target.needs and target.needs not in flags:
        return Verdict(target, found, None, f"does not apply: the CPU lacks {target.needs}")
    met = found <= target.bound if target.most else found >= target.bound
    return Verdict(target, found, met, "met" if met else "not met")
