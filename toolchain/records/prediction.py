"""Predictions: for one row in the form of a `transformers` text-classification pipeline, and what `predict` prints."""

from typing import NotRequired, TypedDict


class Prediction(TypedDict):
    """A label with its score."""

    label: str | None
    """Name of the class, from the checkpoint's `id2label`; null for regression."""
    score: float
    """Softmax probability of the class, 0 to 1; for regression, the predicted value."""
    truncated: NotRequired[bool]
    """True if the text is longer than the model reads; absent if it is not."""


class PredictedRow(TypedDict):
    """One line of `toolchain predict --json`, or one row of the file that it writes."""

    text: str
    """The text as it was given."""
    text_pair: NotRequired[str]
    """The second text of a pair."""
    label: str | None
    """Name of the class; null for regression, and no column of a CSV file then."""
    score: float
    """Softmax probability of the class, 0 to 1; for regression, the predicted value."""


class PredictedFile(TypedDict):
    """What `toolchain predict -o FILE --json` prints."""

    bundle: str
    """Folder of the bundle."""
    artefact: str
    """The file of the bundle that ran, `checkpoint`, or the address of a server."""
    file: str
    """The file that was written."""
    rows: int
    """Number of its rows."""
