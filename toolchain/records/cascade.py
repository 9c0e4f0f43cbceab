"""A cascade of two models: the key `cascade` of `bundle.json` and of results, and what `toolchain cascade` prints.

A small first stage answers the rows of which it is sure: those where the difference of its two highest logits (the
margin) is at least a threshold. It passes the other rows on to the second stage, a larger model.
"""

from typing import Literal, NotRequired, TypedDict

from toolchain.records.comparison import Verdict


class StageAccuracy(TypedDict):
    """The task's main metric of each stage and of the cascade, on the rows that the threshold was chosen on."""

    small: float
    """Metric of the first stage alone."""
    big: float
    """Metric of the second stage alone."""
    cascade: float
    """Metric of the cascade of both stages."""


class TriedThreshold(TypedDict):
    """One threshold that was tried, with the drop of the metric against the second stage alone."""

    threshold: float
    """Smallest margin at which the first stage answers a row."""
    passed_on: float
    """Fraction of the rows with a smaller margin, which go to the second stage, 0 to 1."""
    drop_points: float
    """Drop of the main metric, second stage alone minus cascade, in points (1/100)."""
    bound_points: float | None
    """One-sided upper confidence bound of the drop, in points; null if the bound is infinite."""
    verdict: Verdict
    """Verdict on this threshold: `passes` if the bound is at most `max_drop_points`, `fails` if the drop itself is
    above it, else `cannot tell`."""


class ThresholdRows(TypedDict):
    """The labelled rows that the threshold was chosen on."""

    n: int
    """Number of rows; each text counts once."""
    digest: str
    """SHA-256 of the rows' texts and labels, hexadecimal."""
    source: str
    """The file or split that the rows were read from."""
    left_out: int
    """Number of rows that were not used because they are also train rows."""


class LexicalRecord(TypedDict):
    """A lexical first stage: a linear model over tokens and pairs of adjacent tokens (TF-IDF)."""

    features: int
    """Number of tokens and token pairs that have a weight."""
    rows: int
    """Number of train rows that the weights were fitted to."""
    data_sha256: str
    """SHA-256 of the texts and labels of the rows that the weights were fitted to, hexadecimal."""


class CascadeAbout(TypedDict):
    """The model that is the first stage of a cascade."""

    first: Literal["lexical", "bundle"]
    """Kind of the first stage: a `lexical` model, or another `bundle`."""
    file: str
    """File of the lexical model, or folder of the first stage's bundle, within the cascade's folder."""
    lexical: NotRequired[LexicalRecord]
    """The lexical model; absent if the first stage is a bundle."""
    sha256: NotRequired[str]
    """Digest of the first stage's bundle; absent if the first stage is lexical."""


class CascadeRecord(CascadeAbout):
    """The first stage of a cascade, its threshold, and the measurements by which the threshold was chosen."""

    threshold: float
    """Smallest margin at which the first stage answers a row. Rows with a smaller margin go to the second stage."""
    passed_on: float
    """Fraction of the rows that go to the second stage, 0 to 1."""
    passed_on_tokens: float
    """Fraction of all tokens that are in rows that go to the second stage, 0 to 1."""
    agreement_with_big: float
    """Fraction of the rows for which the cascade predicts the same label as the second stage alone, 0 to 1."""
    accuracy: StageAccuracy
    """The task's main metric of each stage and of the cascade."""
    max_drop_points: float
    """Largest drop of the main metric that was allowed, in points (1/100)."""
    confidence: float
    """Confidence level of the one-sided bounds, such as 0.95."""
    tried: list[TriedThreshold]
    """The thresholds that were tried, from the highest down. The search stops at the first one that does not pass."""
    first_cost: float
    """Ratio of two times: first stage for all rows, divided by second stage for all rows. Mean over the rounds."""
    cost_ratio: float
    """Ratio of two times: cascade for all rows, divided by second stage alone for all rows. Mean over the rounds, in
    which the models took turns."""
    cost_ratio_ci95: list[float]
    """95 % confidence interval of `cost_ratio`, over the rounds."""
    calibrated_on: ThresholdRows
    """The labelled rows that the threshold was chosen on."""


class CascadeRun(TypedDict):
    """How many of the evaluated rows a cascade passed on to its second stage."""

    passed_on: float
    """Fraction of the rows that went to the second stage, 0 to 1."""
    passed_on_tokens: float
    """Fraction of all tokens that were in rows that went to the second stage, 0 to 1."""
    expected: float
    """Value of `passed_on` for the rows that the threshold was chosen on, for comparison."""
    expected_n: int
    """Number of rows that the threshold was chosen on."""
    chosen_on: int
    """Number of evaluated rows on which the threshold was also chosen. With many of them, the metric may be too
    high."""


class CascadeMade(TypedDict):
    """What `toolchain cascade --json` prints."""

    bundle: str
    """Path of the new bundle with the cascade."""
    cascade: CascadeRecord
    """The first stage, the threshold, and the measurements."""
    next: str
    """Command to run next."""
