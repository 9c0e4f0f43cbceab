"""The comparison of two results on the same rows: what `toolchain compare --json` prints, and the gate of a build."""

from typing import Literal, NotRequired, TypedDict

Verdict = Literal["passes", "fails", "cannot tell"]


class Flips(TypedDict):
    """Rows whose prediction changed from the baseline to the candidate."""

    lost: int
    """Rows that were right and became wrong. A row of several labels is right if all of them are."""
    gained: int
    """Rows that were wrong and became right."""
    changed: int
    """Rows whose label, or any of whose labels, changed."""


class Comparison(TypedDict):
    """The drop of the task's main metric from a baseline to a candidate.

    Points are 1/100 of the metric; a negative drop is a gain.
    """

    metric: str
    """The task's main metric."""
    n: int
    """Number of rows, the same in both."""
    baseline: float
    """The metric of the baseline."""
    candidate: float
    """The metric of the candidate."""
    drop_points: float
    """100 * (`baseline` - `candidate`)."""
    bounds_points: list[float | None]
    """Lower and upper one-sided bound of the drop, each at `confidence`; null where the bound is not finite."""
    confidence: float
    """Confidence of each bound, between 0.5 and 1."""
    flips: Flips | None
    """Changed rows; null for a regression."""
    p_value: float | None
    """Two-sided exact McNemar test of accuracy; null for other metrics."""
    detectable_points: float | None
    """The smallest true drop that this number of rows would show with a chance of 0.8."""
    max_drop_points: float | None
    """The largest drop that the gate allows; null without a gate."""
    verdict: Verdict | None
    """The verdict of the gate; null without one."""
    rows_to_tell: int | None
    """About how many rows would give a clear verdict; null if it is clear, or if 10,000 times more would not do."""


class NamedComparison(Comparison):
    """A comparison with the names of both sides and the rows that were compared."""

    baseline_name: str
    """Backend and variant of the baseline, with its bundle if that is another one; or the FP32 reference."""
    candidate_name: str
    """The same of the candidate."""
    task: str
    """Name of the task."""
    split: str
    """Name of the split."""
    data_sha256: str
    """SHA-256 of the texts and labels of the rows."""
    why: NotRequired[str]
    """Why the verdict is `cannot tell` however many rows there are: the original of a shrunk checkpoint is missing."""


class ComparisonList(TypedDict):
    """The whole output of `toolchain compare --json`."""

    comparisons: list[NamedComparison]
    """One comparison for each candidate."""
