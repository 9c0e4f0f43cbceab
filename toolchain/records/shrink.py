"""A checkpoint that was cut and trained by its original: `shrink.json`, and what `toolchain shrink` prints."""

from typing import NotRequired, TypedDict

from toolchain.records.comparison import NamedComparison
from toolchain.records.training import Training, TrainingLoss


class Teacher(TypedDict):
    """The checkpoint that was cut, and that the result was trained to follow."""

    id: str
    """Hub id, absolute path, or the name of a demo model."""
    sha256: dict[str, str]
    """File of the checkpoint -> SHA-256."""


class Sizes(TypedDict):
    """A number of the original, and of the result."""

    before: int
    """Of the original."""
    after: int
    """Of the result."""


class ShrinkScores(TypedDict):
    """The task's main metric on the labelled rows that were evaluated."""

    metric: str
    """Name of the metric."""
    n: int
    """Number of rows."""
    original: float
    """Of the original."""
    cut: float
    """Of the cut model before it was trained."""
    shrunk: float
    """Of the result."""


class ShrinkRecord(Training):
    """`shrink.json`: what was cut, and how the rest was trained."""

    teacher: Teacher
    """The original."""
    ffn: Sizes
    """Width of the feed-forward blocks."""
    layers: Sizes
    """Number of layers."""
    layers_kept: list[int]
    """The original's layers that are left, from 0."""
    macs_ratio: float
    """Multiply-accumulates of the result by those of the original, for a row of the mean length."""
    parameters: Sizes
    """Number of weights."""
    loss: TrainingLoss
    """The loss."""
    scores: ShrinkScores | None
    """The task's main metric before and after; null without labelled rows to evaluate."""


class Shrunk(TypedDict):
    """What `toolchain shrink --json` prints."""

    checkpoint: str
    """Folder of the new checkpoint."""
    shrink: ShrinkRecord
    """Its `shrink.json`."""
    gate: NotRequired[NamedComparison]
    """Comparison with the original; only with --max-drop."""
    next: str
    """The next command."""
