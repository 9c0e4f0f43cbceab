"""`--calib-method auto`: chooses the smoothing and the range method whose INT8 or FP8 logits are nearest to FP32.

Each combination of smoothing and range method is built in memory as the graph for TensorRT, and its logits are compared
with the FP32 logits on the hold-out rows. A combination that can no longer be the nearest is not run on the remaining
rows. Labels are not read, and validation rows are never used.
"""

import math
from dataclasses import dataclass

import onnx_ir as ir

from toolchain.base.progress import track
from toolchain.base.tensors import Ranges
from toolchain.checkpoint.tokenize import Tokens
from toolchain.graph import read_weights
from toolchain.graph.first_token import first_token
from toolchain.graph.smooth import Exponents, exponents, smooth
from toolchain.heads.distance import Distance
from toolchain.int8.calibrate import channel_amax, collect
from toolchain.int8.holdout import Holdout
from toolchain.int8.quantize import TENSORRT, QdqScheme, quantize
from toolchain.int8.range_methods import Histogram
from toolchain.records.calibration import TrialRecord

# Values of SmoothQuant's alpha to try: the fraction of the outliers that moves into the weights; None means no
# smoothing. The values that are best most often come first, so that the evaluation of the others ends early.
ALPHAS = (0.85, 0.7, 0.5, None)

# Range methods to try (int8/range_methods.py). Here too, the methods that are best most often come first.
CANDIDATES = ("percentile-99.999", "minmax", "entropy", "mse", "percentile")


@dataclass(frozen=True)
class Trial:
    """One combination of range method and smoothing, and the distance of its logits from FP32 on `rows` hold-out rows.

    `alpha` is the strength of the smoothing (graph/smooth.py), None without smoothing.
    """

    method: str
    alpha: float | None
    distance: Distance
    rows: int

    def to_json(self) -> TrialRecord:
        """Return the trial as calibration.json stores it."""
        return {"method": self.method, "smooth": self.alpha, "rows": self.rows, **self.distance.to_json()}


@dataclass(frozen=True)
class Choice:
    """The result of `choose`: ranges and smoothing of the best combination, and all trials, nearest to FP32 first."""

    ranges: Ranges
    smoothing: Exponents
    trials: list[Trial]

    @property
    def best(self) -> Trial:
        """The trial that is nearest to FP32."""
        return self.trials[0]


def choose(
    model: ir.Model,
    calibration: Tokens,
    holdout: Holdout,
    *,
    scheme: QdqScheme = TENSORRT,
    alpha: float | None = None,
) -> Choice:
    """Return the combination of smoothing and range method that is nearest to FP32 on the hold-out rows.

    Args:
        model: the FP32 graph.
        calibration: the rows that ranges are measured on.
        holdout: other rows, for the comparison.
        scheme: the types of the quantized graph, INT8 or FP8.
        alpha: strength of the smoothing; if given, no other is tried.
    """
    amax = channel_amax(model, calibration)
    alphas = (alpha,) if alpha is not None else ALPHAS if amax else (None,)
    made: dict[Trial, tuple[Ranges, Exponents]] = {}
    todo = [(share, method) for share in alphas for method in CANDIDATES]
    powers: dict[float | None, Exponents] = {}
    histograms: dict[str, Histogram] = {}
    base, nearest = model, math.inf
    for share, method in track(todo, total=len(todo), text="choosing a method"):
        if share not in powers:
            powers[share] = exponents(model, amax, share) if share is not None else {}
            base = smoothed(model, powers[share])
            histograms = collect(base, calibration)
        ranges = {name: histogram.range(method) for name, histogram in histograms.items()}
        candidate = base.clone()
        first_token(candidate)
        quantize(candidate, ranges, scheme)
        trial = Trial(method, share, *holdout.distance_below(candidate, nearest))
        nearest = min(nearest, trial.distance.rank)
        made[trial] = ranges, powers[share]
    trials = sorted(made, key=lambda trial: trial.distance.rank)
    return Choice(*made[trials[0]], trials)


def smoothed(model: ir.Model, powers: Exponents) -> ir.Model:
    """Return a copy of the float graph, smoothed by the factors `powers`. Unchanged weights are shared, not copied."""
    read_weights(model)
    made = model.clone()
    smooth(made, powers)
    return made
