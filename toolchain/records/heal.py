"""The step `heal` of a bundle: the weights of its INT8 graphs, rounded to give FP32's logits; what `heal` prints."""

from typing import NotRequired, TypedDict

from toolchain.records.calibration import DistanceRecord
from toolchain.records.comparison import NamedComparison
from toolchain.records.deployment import Deployment
from toolchain.records.training import Training, TrainingLoss


class HealRounding(TypedDict):
    """How the weights of GEMMs were rounded anew, so that their errors cancel."""

    gemms: int
    """GEMMs whose weights were rounded."""
    rows: int
    """Train rows whose activations they were rounded for."""
    tokens: int
    """Tokens of these rows."""
    bias: NotRequired[str]
    """What the bias takes of the difference from FP32: its `mean`, or the mean without that of a few tokens, `robust`.
    Missing in bundles that were healed when there was no choice."""
    distances: NotRequired[dict[str, float]]
    """Such a way -> the sum of both graphs' distances from FP32 with it, over rows for this choice; the least stays."""
    chosen_on: NotRequired[int]
    """Train rows for this choice, that are neither among those rounded on nor held out. The bundle lists them among the
    rows that it learnt from."""
    seconds: float
    """Time of the roundings and of the choice."""


class HealDistance(TypedDict):
    """The distance of one INT8 graph's logits from FP32's, over train rows that were not learnt from."""

    before: DistanceRecord
    """With the checkpoint's weights."""
    after: DistanceRecord
    """With the healed weights."""


class HealRecord(Training):
    """Step `heal`: `model.onnx`, ranges and rows to `healed.safetensors`."""

    made_of: dict[str, str]
    """File that the weights belong to -> its SHA-256."""
    graphs: NotRequired[list[str]]
    """INT8 graphs that have the healed weights; both if the key is missing."""
    kept: NotRequired[dict[str, str]]
    """INT8 graph that keeps the checkpoint's weights -> why."""
    weights: int
    """Numbers in `healed.safetensors`."""
    rounding: HealRounding
    """How the weights were rounded, before any training."""
    loss: TrainingLoss | None
    """The loss of the training; null without training."""
    held_out: int
    """Train rows that were not learnt from, on which the distance is measured."""
    distance: dict[str, HealDistance]
    """INT8 graph -> its distance from FP32."""


class Gated(TypedDict):
    """The gate of a healed bundle."""

    gate: NotRequired[list[NamedComparison]]
    """Comparisons of its graphs with FP32 after."""
    deploy: NotRequired[Deployment]
    """The artefact that the gate allows to deploy."""


class Healed(Gated):
    """What `toolchain heal --json` prints."""

    bundle: str
    """Path of the bundle."""
    before: list[NamedComparison]
    """Comparisons of its graphs with FP32 before."""
    heal: HealRecord | None
    """What was done; null if the gate passed before, so that nothing needs healing."""
