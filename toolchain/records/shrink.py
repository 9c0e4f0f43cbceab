"""A checkpoint that `toolchain shrink` made from a larger one: `shrink.json`, and what the command prints.

The command removes layers and feed-forward units from the original, and trains the result to reproduce the original's
logits.
"""

from typing import NotRequired, TypedDict

from toolchain.records.comparison import NamedComparison
from toolchain.records.training import Training, TrainingLoss


class Teacher(TypedDict):
    """The original checkpoint, which was cut, and which the result was trained to reproduce."""

    id: str
    """Hub id, absolute path, or the name of a demo model."""
    sha256: dict[str, str]
    """Name of a file of the checkpoint -> its SHA-256."""


class Sizes(TypedDict):
    """A size of the original and of the result, such as the number of layers."""

    before: int
    """Size of the original."""
    after: int
    """Size of the result."""


class ShrinkScores(TypedDict):
    """The task's main metric of the original, of the cut model, and of the trained result."""

    metric: str
    """Name of the metric."""
    n: int
    """Number of labelled rows that were evaluated."""
    original: float
    """Metric of the original."""
    cut: float
    """Metric of the cut model before its training."""
    shrunk: float
    """Metric of the result, after the training."""


class ShrinkRecord(Training):
    """The content of `shrink.json`: what was removed, and how the result was trained."""

    teacher: Teacher
    """The original checkpoint."""
    ffn: Sizes
    """Width of the feed-forward blocks, before and after."""
    layers: Sizes
    """Number of layers, before and after."""
    layers_kept: list[int]
    """Indices of the original's layers that were kept, from 0."""
    macs_ratio: float
    """Multiply-accumulate operations of the result divided by those of the original, for a row of mean length."""
    parameters: Sizes
    """Number of weights, before and after."""
    loss: TrainingLoss
    """Loss at the beginning and at the end of the training."""
    scores: ShrinkScores | None
    """The task's main metric before and after; null if there were no labelled rows to evaluate."""


class Shrunk(TypedDict):
    """What `toolchain shrink --json` prints."""

    checkpoint: str
    """Folder of the new checkpoint."""
    shrink: ShrinkRecord
    """Content of the new checkpoint's `shrink.json`."""
    gate: NotRequired[NamedComparison]
    """Comparison of the new checkpoint with the original; only with `--max-drop`."""
    next: str
    """Command to run next."""
