"""How to quantise this model: smoothing and range method, by what comes nearest to FP32.

Each combination is built in memory as the graph for TensorRT, and its logits are compared with FP32's on train rows
that calibration did not see. Labels are not read, and validation rows are never looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from toolchain.checkpoint.tokenize import Tokens
from toolchain.graph.smooth import Exponents, exponents, smooth
from toolchain.int8.calibrate import channel_amax, collect
from toolchain.int8.holdout import Holdout
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.progress import track
from toolchain.runtimes.distance import Distance
from toolchain.tensors import Ranges

ALPHAS = (None, 0.5, 0.7, 0.85)
"""Shares of the outliers that SmoothQuant moves into the weights; None: not smoothed."""

CANDIDATES = ("entropy", "minmax", "percentile", "percentile-99.999", "mse")


@dataclass(frozen=True)
class Trial:
    """One combination and how far it is from FP32."""

    method: str
    alpha: float | None
    distance: Distance

    def to_json(self) -> dict[str, Any]:
        """Return the record that calibration.json keeps."""
        return {"method": self.method, "smooth": self.alpha, **self.distance.to_json()}


@dataclass(frozen=True)
class Choice:
    """What was chosen, and every trial, nearest first."""

    ranges: Ranges
    smoothing: Exponents
    trials: list[Trial]

    @property
    def best(self) -> Trial:
        """The nearest."""
        return self.trials[0]


def choose(
    load: Callable[[], ir.Model], calibration: Tokens, holdout: Holdout, *, alpha: float | None = None
) -> Choice:
    """Return the combination that is nearest to FP32 on the rows held out.

    Args:
        load: gives a new copy of the FP32 graph.
        calibration: rows that ranges are made from.
        holdout: other rows, to compare on.
        alpha: try this smoothing only.
    """
    amax = channel_amax(load(), calibration)
    alphas = (alpha,) if alpha is not None else ALPHAS if amax else (None,)
    made: dict[Trial, tuple[Ranges, Exponents]] = {}
    todo = [(share, method) for share in alphas for method in CANDIDATES]
    histograms, powers = {}, {}
    for share, method in track(todo, total=len(todo), text="choosing a method"):
        if share not in histograms:
            powers[share] = exponents(load(), amax, share) if share is not None else {}
            histograms[share] = collect(smoothed(load, powers[share]), calibration)
        ranges = {name: histogram.range(method) for name, histogram in histograms[share].items()}
        model = smoothed(load, powers[share])
        quantize(model, ranges, TENSORRT)
        made[Trial(method, share, holdout.distance(model))] = ranges, powers[share]
    trials = sorted(made, key=lambda trial: trial.distance.rank)
    return Choice(*made[trials[0]], trials)


def smoothed(load: Callable[[], ir.Model], powers: Exponents) -> ir.Model:
    """Return a new copy of the float graph with its factors folded in."""
    model = load()
    smooth(model, powers)
    return model
