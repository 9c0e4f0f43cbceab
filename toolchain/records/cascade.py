"""A cascade of two models: the key `cascade` of `bundle.json` and of results, and what `toolchain cascade` prints."""

from typing import Literal, NotRequired, TypedDict

from toolchain.records.comparison import Verdict


class StageAccuracy(TypedDict):
    """The task's main metric on the rows that the threshold was chosen on."""

    small: float
    """Of the first stage alone."""
    big: float
    """Of the second stage alone."""
    cascade: float
    """Of both."""


class TriedThreshold(TypedDict):
    """One threshold of the search. The drop is that of the main metric from the second stage alone, in points."""

    threshold: float
    """The margin of the two highest logits of the first stage from which its answer counts."""
    passed_on: float
    """Share of the rows with a smaller margin, 0 to 1."""
    drop_points: float
    """The drop on the rows."""
    bound_points: float | None
    """Its one-sided upper bound; null where the bound is not finite."""
    verdict: Verdict
    """Whether the bound is within the drop that is allowed."""


class ThresholdRows(TypedDict):
    """The rows that the threshold was chosen on."""

    n: int
    """Their number, each text once."""
    digest: str
    """SHA-256 of their texts and labels."""
    source: str
    """Where they were read from."""
    left_out: int
    """Rows that were left out because they are train rows."""


class LexicalRecord(TypedDict):
    """The lexical first stage."""

    features: int
    """Tokens and pairs of neighbours with a weight."""
    rows: int
    """Train rows that it was fitted to."""
    data_sha256: str
    """SHA-256 of their texts and labels."""


class CascadeAbout(TypedDict):
    """What the first stage is."""

    first: Literal["lexical", "bundle"]
    """The kind of the first stage."""
    file: str
    """Its file, or the folder of its bundle."""
    lexical: NotRequired[LexicalRecord]
    """The lexical stage; missing with a bundle."""
    sha256: NotRequired[str]
    """Digest of the first stage's bundle; missing with a lexical stage."""


class CascadeRecord(CascadeAbout):
    """What the first stage is, and what was measured when the threshold was chosen."""

    threshold: float
    """The margin of the two highest logits of the first stage from which its answer counts."""
    passed_on: float
    """Share of the rows that the second stage gets, 0 to 1."""
    passed_on_tokens: float
    """Share of the tokens that the second stage gets, 0 to 1."""
    agreement_with_big: float
    """Share of the rows with the same label as from the second stage alone, 0 to 1."""
    accuracy: StageAccuracy
    """The task's main metric."""
    max_drop_points: float
    """The drop of the main metric that is allowed, in points (1/100)."""
    confidence: float
    """Confidence of the one-sided bounds."""
    tried: list[TriedThreshold]
    """The thresholds in the order of the search, from the safest down; the first that does not pass ended it."""
    first_cost: float
    """Time of the first stage for all rows, by that of the second stage for all rows."""
    cost_ratio: float
    """Time of the cascade by that of the second stage alone: mean over interleaved rounds."""
    cost_ratio_ci95: list[float]
    """95 % interval of its mean over the rounds."""
    calibrated_on: ThresholdRows
    """The rows that the threshold was chosen on."""


class CascadeRun(TypedDict):
    """What a cascade did with the rows of a result."""

    passed_on: float
    """Share of the rows that the second stage ran, 0 to 1."""
    passed_on_tokens: float
    """Share of the tokens that the second stage ran, 0 to 1."""
    expected: float
    """Share of the rows on which the threshold was chosen that the second stage gets."""
    expected_n: int
    """Number of these rows."""
    chosen_on: int
    """Rows of this result on which the threshold was chosen."""


class CascadeMade(TypedDict):
    """What `toolchain cascade --json` prints."""

    bundle: str
    """Path of the cascade."""
    cascade: CascadeRecord
    """The stages, and what was measured."""
    next: str
    """The next command."""
