"""Mixed precision: the search for GEMMs to exclude from INT8, so that the drop of the metric stays within a limit.

The search looks for few GEMMs with little work:

1. One pass measures every GEMM's noise at its own output (sensitivity.py).
2. For each of the noisiest GEMMs, the logits are computed with that GEMM alone in INT8, on a sample of the rows. The
   errors of these logits only order the GEMMs.
3. GEMMs are excluded in the order of effect per multiply-accumulate. Their number doubles until the drop is within the
   limit. A bisection then finds the smallest number that is enough. At last, each GEMM that need not be excluded
   returns to INT8.
4. If the drop stays within the limit with residual additions in INT8 too, the result says so.

All steps use hold-out rows (holdout.py). The gate (diagnose/gate.py) tests whether the drop on validation rows is
within the limit.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from toolchain.base.progress import bar
from toolchain.base.tensors import Ranges
from toolchain.graph.first_token import first_token
from toolchain.heads.distance import Distance
from toolchain.int8.holdout import Holdout
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.int8.sensitivity import Sensitivity, measure_noise
from toolchain.records.calibration import KeptRecord
from toolchain.records.quantization import SearchRecord

# Number of rows for signal-to-noise ratios. A few are enough: a ratio is computed from all values of a tensor.
NOISE_ROWS = 64

# Beginning of a key in `memory`; the names of the excluded GEMMs follow. Without names, it is the key of the graph with
# every GEMM in INT8.
KEPT = "kept: "

# Beginning of such a key, before KEPT, if residual additions read INT8 too.
RESIDUAL = "residual in INT8, "

# Number of rows on which each GEMM is tried alone in INT8. The effects only order the GEMMs, which differ by far more
# than the error of an effect that is measured on this many rows.
ALONE_ROWS = 128

# Fraction of the budget for trying GEMMs alone; the rest is for sets of GEMMs.
EXACT_SHARE = 0.5


@dataclass(frozen=True)
class Exclusion:
    """A set of GEMMs excluded from INT8 (`keep`), and the distance of the logits from FP32 with this set.

    `macs` is the fraction of all multiply-accumulates that these GEMMs perform, 0 to 1. `expected_drop_points` is the
    expected drop of the task's metric, in points (1/100).
    """

    keep: tuple[str, ...]
    macs: float
    distance: Distance
    expected_drop_points: float

    def to_json(self) -> KeptRecord:
        """Return the exclusion as calibration.json and tune.json store it."""
        return {
            "keep": list(self.keep),
            "macs": self.macs,
            "expected_drop_points": self.expected_drop_points,
            **self.distance.to_json(),
        }


@dataclass(frozen=True)
class SearchResult:
    """The result of a search: the best exclusion, and the measurements that led to it.

    `enough`: whether the expected drop of `best` is within the limit. `residual`: `best` with residual additions in
    INT8; None if its drop exceeds the limit, or if it was not tried. `evaluations`: number of graphs evaluated.
    """

    best: Exclusion
    enough: bool
    residual: Exclusion | None
    gemms: list[Sensitivity]
    tried: list[Exclusion]
    evaluations: int


@dataclass
class Search:
    """A search for GEMMs to exclude from INT8. `model` is the float graph that `ranges` were measured on.

    `budget` is the largest number of graphs to evaluate. `memory` has the evaluations of an earlier search, which are
    not repeated, and receives the new ones. `save` is called after each new one.
    """

    model: ir.Model
    ranges: Ranges
    holdout: Holdout
    budget: int
    memory: SearchRecord
    save: Callable[[], None] = lambda: None
    macs: dict[str, float] = field(default_factory=dict, init=False)
    evaluated: set[str] = field(default_factory=set, init=False)
    _advance: Callable[[], None] = field(default_factory=lambda: lambda: None, init=False)  # moves the progress bar

    def run(self, *, max_drop: float, most_macs: float = 1.0) -> SearchResult:
        """Search for the smallest exclusion whose expected drop is at most `max_drop` points.

        It excludes at most the fraction `most_macs` of all multiply-accumulates. If no exclusion is enough, the best
        one is the nearest to FP32.
        """
        with bar(self.budget, "tuning") as self._advance:
            gemms = self._noise()
            self.macs = {gemm.name: gemm.macs for gemm in gemms}
            tried = [self._exclude(())]
            sample = self.holdout.sample(ALONE_ROWS)
            noisiest = sorted(gemms, key=lambda gemm: gemm.snr_db)
            for gemm in noisiest[: int(self.budget * EXACT_SHARE)]:
                others = [name for name in self.macs if name != gemm.name]
                alone = self._distance(f"alone: {gemm.name}", others, sample)
                found = replace(gemm, effect=alone.rank, drop_points=sample.expected_drop(alone))
                gemms[gemms.index(gemm)] = found
            if tried[0].expected_drop_points > max_drop:
                tried += self._grow(_within(_ordered(gemms), self.macs, most_macs), max_drop)
        passing = [one for one in tried if one.expected_drop_points <= max_drop]
        best = min(passing, key=lambda one: (len(one.keep), one.macs)) if passing else min(tried, key=_rank)
        residual = self.residual(best.keep, max_drop=max_drop) if passing and not self._spent() else None
        return SearchResult(best, bool(passing), residual, gemms, tried, len(self.evaluated))

    def residual(self, keep: Iterable[str], *, max_drop: float) -> Exclusion | None:
        """Return the exclusion of `keep` with residual additions in INT8; None if its drop would exceed `max_drop`."""
        found = self._exclude(keep, residual=True)
        return found if found.expected_drop_points <= max_drop else None

    def _grow(self, names: list[str], max_drop: float) -> Iterator[Exclusion]:
        """Yield the exclusions that step 3 of the search tries (see the module). `names` are the GEMMs, in order."""

        def enough(one: Exclusion) -> bool:
            return one.expected_drop_points <= max_drop

        if not names:
            return
        size, low = 1, 0
        while not self._spent():
            size = min(size, len(names))
            found = self._exclude(names[:size])
            yield found
            if enough(found) or size == len(names):
                break
            low, size = size, 2 * size
        else:
            return
        if not enough(found):
            return
        while size - low > 1 and not self._spent():
            middle = (low + size) // 2
            found = self._exclude(names[:middle])
            yield found
            low, size = (low, middle) if enough(found) else (middle, size)
        kept = names[:size]
        for name in sorted(kept, key=lambda name: -self.macs[name]):
            if len(kept) > 1 and not self._spent():
                found = self._exclude([one for one in kept if one != name])
                yield found
                kept = list(found.keep) if enough(found) else kept

    def _spent(self) -> bool:
        # Evaluations that an earlier search has stored count too, so that a resumed search takes the same path.
        return len(self.evaluated) >= self.budget

    def _noise(self) -> list[Sensitivity]:
        if "noise" not in self.memory:
            rows = self.holdout.tokens.take(np.arange(min(NOISE_ROWS, len(self.holdout.tokens))))
            self.memory["noise"] = [one.to_json() for one in measure_noise(self._pruned, self.ranges, rows)]
            self.save()
        return [Sensitivity(**one) for one in self.memory["noise"]]

    @functools.cached_property
    def _pruned(self) -> ir.Model:
        """A copy of the float graph that computes the last layer for the first token only."""
        model = self.model.clone()
        first_token(model)
        return model

    def _exclude(self, keep: Iterable[str], *, residual: bool = False) -> Exclusion:
        kept = sorted(keep)
        key = (RESIDUAL if residual else "") + KEPT + " ".join(kept)
        found = self._distance(key, kept, self.holdout, residual=residual)
        macs = sum(self.macs[name] for name in kept)
        return Exclusion(tuple(kept), macs, found, self.holdout.expected_drop(found))

    def _distance(self, key: str, keep: Iterable[str], holdout: Holdout, *, residual: bool = False) -> Distance:
        """Return the distance from FP32 of the graph with `keep` excluded; `memory` stores it under `key`."""
        done = self.memory.setdefault("evaluations", {})
        if key not in done:
            model = self._pruned.clone()
            quantize(model, self.ranges, TENSORRT, keep=list(keep), residual=residual)
            done[key] = holdout.distance(model).to_json()
            self.save()
        self.evaluated.add(key)
        self._advance()
        return Distance(**done[key])


def _ordered(gemms: list[Sensitivity]) -> list[str]:
    """Return the names of GEMMs in the order to exclude them: largest effect per work first.

    GEMMs without a measured effect come last, the noisiest of them first.
    """
    measured = [gemm for gemm in gemms if gemm.effect is not None]
    others = [gemm for gemm in gemms if gemm.effect is None]
    measured.sort(key=lambda gemm: -(float(gemm.effect or 0) ** 2) / gemm.macs)
    return [gemm.name for gemm in (*measured, *sorted(others, key=lambda gemm: gemm.snr_db))]


def _rank(one: Exclusion) -> float:
    return one.distance.rank


def _within(names: list[str], macs: dict[str, float], most: float) -> list[str]:
    """Return names, in order, whose fractions `macs` add up to at most `most`; skip a name that would exceed it."""
    kept, total = [], 0.0
    for name in names:
        if total + macs[name] <= most:
            kept.append(name)
            total += macs[name]
    return kept
