"""The build step `heal`, which chooses new weights for INT8 graphs, and the output of `toolchain heal`.

The weights of the INT8 graphs are rounded again, and trained if asked, so that the logits come nearer to those of FP32.
Only the texts of train rows are used, and not their labels.
"""

from typing import NotRequired, TypedDict

from toolchain.records.calibration import DistanceRecord
from toolchain.records.comparison import NamedComparison
from toolchain.records.deployment import Deployment
from toolchain.records.training import Training, TrainingLoss


class HealRounding(TypedDict):
    """How the weights of the INT8 GEMMs were rounded again, so that the rounding errors cancel out."""

    gemms: int
    """Number of GEMMs whose weights were rounded again."""
    rows: int
    """Number of train rows whose activations were used for the rounding."""
    tokens: int
    """Number of tokens in the train rows that were used for the rounding."""
    bias: NotRequired[str]
    """How the bias of a GEMM was corrected by its mean difference from FP32: `mean`, over all tokens; `robust`, with
    the effect of outlier tokens limited. Absent in bundles of earlier versions, which had only one method."""
    distances: NotRequired[dict[str, float]]
    """`mean` and `robust` -> sum of both INT8 graphs' distances from FP32 when the bias is corrected in this way. The
    method with the smaller sum was chosen."""
    chosen_on: NotRequired[int]
    """Number of train rows on which `distances` was measured. None of them was used for the rounding or is held out.
    The bundle lists them among the rows that it learnt from."""
    seconds: float
    """Time of the rounding and of the choice of `bias`, in seconds."""


class HealDistance(TypedDict):
    """How far the logits of one INT8 graph are from FP32's, on train rows that were not learnt from."""

    before: DistanceRecord
    """Distance with the checkpoint's weights."""
    after: DistanceRecord
    """Distance with the healed weights."""


class HealRecord(Training):
    """Record of the step `heal`: it makes `healed.safetensors` from `model.onnx`, calibration ranges and train rows."""

    made_of: dict[str, str]
    """Name of a file that the healed weights were made from -> its SHA-256. The weights fit these files only."""
    graphs: NotRequired[list[str]]
    """Names of the INT8 graphs that use the healed weights; absent if both do (bundles of earlier versions)."""
    kept: NotRequired[dict[str, str]]
    """Name of an INT8 graph that keeps the checkpoint's weights -> why healing would not improve it."""
    weights: int
    """Number of weights in `healed.safetensors`."""
    rounding: HealRounding
    """How the weights were rounded again, before any training."""
    loss: TrainingLoss | None
    """Loss at the beginning and at the end of the training; null without training."""
    held_out: int
    """Number of train rows that were not learnt from, on which `distance` is measured."""
    distance: dict[str, HealDistance]
    """Name of an INT8 graph -> its distance from FP32 before and after healing."""


class Gated(TypedDict):
    """What the gate found after the healing; empty if nothing was healed."""

    gate: NotRequired[list[NamedComparison]]
    """Comparisons of the bundle's graphs with the FP32 graph, after the healing."""
    deploy: NotRequired[Deployment]
    """The artefact that may be deployed according to the gate."""


class Healed(Gated):
    """What `toolchain heal --json` prints."""

    bundle: str
    """Path of the healed bundle."""
    before: list[NamedComparison]
    """Comparisons of the bundle's graphs with the FP32 graph, before the healing."""
    heal: HealRecord | None
    """What was healed; null if the gate had already passed, so that there was nothing to do."""
