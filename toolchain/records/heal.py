"""The step `heal` of a bundle: the weights of its INT8 graphs, trained to give FP32's logits; what `heal` prints."""

from typing import NotRequired, TypedDict

from toolchain.records.calibration import DistanceRecord
from toolchain.records.comparison import NamedComparison
from toolchain.records.deployment import Deployment


class HealLoss(TypedDict):
    """The loss of a training, each the mean over up to 16 steps."""

    first: float
    """At its beginning."""
    last: float
    """At its end."""


class HealDistance(TypedDict):
    """The distance of one INT8 graph's logits from FP32's, over train rows that were not learnt from."""

    before: DistanceRecord
    """With the checkpoint's weights."""
    after: DistanceRecord
    """With the healed weights."""


class HealRecord(TypedDict):
    """Step `heal`: `model.onnx`, ranges and rows to `healed.safetensors`."""

    made_of: dict[str, str]
    """File that the weights belong to -> its SHA-256."""
    rows: int
    """Rows that were learnt from; their labels were not read."""
    rows_left_out: int
    """Train rows that are evaluated, and were not learnt from."""
    data_sha256: str
    """Digest of the rows that were learnt from."""
    rows_seen: int
    """Rows of all steps."""
    steps: int
    """Steps of training."""
    seconds: float
    """Time of training."""
    seed: int
    """Seed of the order of the rows."""
    weights: int
    """Numbers that were trained."""
    loss: HealLoss
    """The loss of the training."""
    held_out: int
    """Train rows that were not learnt from, on which the distance is measured."""
    distance: dict[str, HealDistance]
    """INT8 graph -> its distance from FP32."""


class Healed(TypedDict):
    """What `toolchain heal --json` prints."""

    bundle: str
    """Path of the bundle."""
    before: list[NamedComparison]
    """Comparisons of its graphs with FP32 before."""
    heal: HealRecord | None
    """What was done; null if the gate passed before, so that nothing needs healing."""
    gate: NotRequired[list[NamedComparison]]
    """Comparisons of its graphs with FP32 after."""
    deploy: NotRequired[Deployment]
    """The artefact that the gate allows to deploy."""
