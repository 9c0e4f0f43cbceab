"""The comparison of two results on the same rows, as `toolchain compare` and the gate of a build make it."""

from typing import Literal, NotRequired, TypedDict

Verdict = Literal["passes", "fails", "cannot tell"]


class Flips(TypedDict):
    """How many rows have another prediction in the candidate than in the baseline."""

    lost: int
    """Number of rows that the baseline predicts right and the candidate wrong. A row of several labels is right if all
    of them are."""
    gained: int
    """Number of rows that the baseline predicts wrong and the candidate right."""
    changed: int
    """Number of rows whose predicted label, or any of whose predicted labels, changed."""


class Comparison(TypedDict):
    """The drop of the task's main metric from a baseline to a candidate.

    Points are 1/100 of the metric; a negative drop is a gain.
    """

    metric: str
    """Name of the task's main metric."""
    n: int
    """Number of rows that both results were evaluated on."""
    baseline: float
    """Value of the metric for the baseline."""
    candidate: float
    """Value of the metric for the candidate."""
    drop_points: float
    """100 * (`baseline` - `candidate`)."""
    bounds_points: list[float | None]
    """Lower and upper confidence bound of the drop, each one-sided at `confidence`, in points; null for an infinite
    bound."""
    confidence: float
    """Confidence level of each bound, between 0.5 and 1."""
    flips: Flips | None
    """Number of rows whose prediction changed; null for a regression."""
    p_value: float | None
    """p-value of the two-sided exact McNemar test; null if the metric is neither accuracy nor subset
    accuracy."""
    detectable_points: float | None
    """Smallest true drop, in points, that this number of rows would show with a probability of 0.8; null if the bounds
    are not finite."""
    max_drop_points: float | None
    """Largest drop that the gate allows, in points; null without a gate."""
    verdict: Verdict | None
    """Verdict of the gate: `passes` if the upper bound is at most `max_drop_points`, `fails` if the drop itself is
    above it, else `cannot tell`; null without a gate."""
    rows_to_tell: int | None
    """Approximate number of rows that would give a clear verdict; null if the verdict is clear, or if more than 10,000
    times as many rows would be needed."""


class NamedComparison(Comparison):
    """A comparison, with the names of baseline and candidate and of the rows."""

    baseline_name: str
    """Backend and variant of the baseline, and its bundle if the two bundles differ; or the name of the FP32
    reference."""
    candidate_name: str
    """Backend and variant of the candidate, and its bundle if the two bundles differ."""
    task: str
    """Name of the task."""
    split: str
    """Name of the split."""
    data_sha256: str
    """SHA-256 of the rows' texts and labels, hexadecimal."""
    why: NotRequired[str]
    """Why more rows would not give a clear verdict: the original of a shrunk checkpoint is missing. Absent
    otherwise."""


class ComparisonList(TypedDict):
    """The output of `toolchain compare --json`."""

    comparisons: list[NamedComparison]
    """One comparison for each candidate."""
