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


class LabelSet(TypedDict):
    """The labels of one row of a model that gives several; `/classify` responds so too."""

    labels: list[str]
    """Names of the labels whose score reaches the threshold, highest score first; it may be empty."""
    scores: dict[str, float]
    """Label -> score, of all labels: the sigmoid of its logit, 0 to 1."""
    truncated: NotRequired[bool]
    """True if the text is longer than the model reads; absent if it is not."""


class Vector(TypedDict):
    """The vector of one text, of a model of embeddings; `/classify` responds so too."""

    embedding: list[float]
    """Its numbers."""
    truncated: NotRequired[bool]
    """True if the text is longer than the model reads; absent if it is not."""


class Entity(TypedDict):
    """A part of a text with its type."""

    label: str
    """The type, which is the tag without its prefix."""
    score: float
    """Mean of its words' scores: the softmax probability of a word's tag, 0 to 1."""
    start: int
    """Where it begins in the text, in characters (code points) from 0."""
    end: int
    """Where it ends; the character there is not part of it."""
    text: str
    """The part of the text."""


class Entities(TypedDict):
    """The entities of one text, of a model of tags; `/classify` responds so too."""

    entities: list[Entity]
    """Entities in the order of the text; it may be empty."""
    truncated: NotRequired[bool]
    """True if the text is longer than the model reads; absent if it is not."""


# What a model says of one row.
Answer = Prediction | LabelSet | Vector | Entities


class PredictedRow(TypedDict):
    """One line of `toolchain predict --json`, or one row of the file that it writes."""

    text: str
    """The text as it was given."""
    text_pair: NotRequired[str]
    """The second text of a pair."""
    label: NotRequired[str | None]
    """Name of the class; null for regression, and no column of a CSV file then."""
    score: NotRequired[float]
    """Softmax probability of the class, 0 to 1; for regression, the predicted value."""
    labels: NotRequired[list[str]]
    """Instead of both, for a model of several labels a row: the labels, highest score first; JSON in a CSV file."""
    scores: NotRequired[dict[str, float]]
    """With `labels`: label -> score, of all labels; JSON in a CSV file."""
    embedding: NotRequired[list[float]]
    """Instead of all of these, for a model of embeddings: the vector; JSON in a CSV file."""
    entities: NotRequired[list[Entity]]
    """Instead of all of these, for a model of tags: the entities; JSON in a CSV file."""


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
