"""Predictions for one row, in the form of a `transformers` text-classification pipeline, and what `predict` prints."""

from typing import NotRequired, TypedDict


class Prediction(TypedDict):
    """The predicted label of one row, with its score."""

    label: str | None
    """Name of the predicted class, from the checkpoint's `id2label`; null for a regression."""
    score: float
    """Softmax probability of the predicted class, 0 to 1; for a regression, the predicted value."""
    truncated: NotRequired[bool]
    """True if the text was longer than the model's maximum length and was truncated; absent otherwise."""


class LabelSet(TypedDict):
    """The labels of one row from a multi-label model; also the response of `/classify` for such a model."""

    labels: list[str]
    """Names of the labels whose score is at least the threshold, highest score first; may be empty."""
    scores: dict[str, float]
    """Name of every label -> its score: the sigmoid of its logit, 0 to 1."""
    truncated: NotRequired[bool]
    """True if the text was longer than the model's maximum length and was truncated; absent otherwise."""


class Vector(TypedDict):
    """The vector of one text from an embedding model; also the response of `/classify` for such a model."""

    embedding: list[float]
    """The elements of the vector."""
    truncated: NotRequired[bool]
    """True if the text was longer than the model's maximum length and was truncated; absent otherwise."""


class Entity(TypedDict):
    """One entity: a span of a text, and its type."""

    label: str
    """Type of the entity: the tag without its prefix, such as `PER` for `B-PER`."""
    score: float
    """Score of the entity: the mean over its words of the softmax probability of the word's tag, 0 to 1."""
    start: int
    """Index of the entity's first character in the text, from 0, counted in Unicode code points."""
    end: int
    """Index of the first character after the entity."""
    text: str
    """The characters of the entity in the text."""


class Entities(TypedDict):
    """The entities of one text from a token-classification model; also the response of `/classify` for such a model."""

    entities: list[Entity]
    """The entities in the order of the text; may be empty."""
    truncated: NotRequired[bool]
    """True if the text was longer than the model's maximum length and was truncated; absent otherwise."""


# The prediction for one row; its type depends on the model.
Answer = Prediction | LabelSet | Vector | Entities


class PredictedRow(TypedDict):
    """The prediction for one row: one line of `toolchain predict --json`, or one row of its output file."""

    text: str
    """The text, as it was given."""
    text_pair: NotRequired[str]
    """The second text, if rows are text pairs."""
    label: NotRequired[str | None]
    """Name of the predicted class; null for a regression. A CSV file of a regression has no such column."""
    score: NotRequired[float]
    """Softmax probability of the predicted class, 0 to 1; for a regression, the predicted value."""
    labels: NotRequired[list[str]]
    """Names of the predicted labels, highest score first. Only for a multi-label model, in place of `label` and
    `score`; a CSV file has it as JSON."""
    scores: NotRequired[dict[str, float]]
    """Name of every label -> its score, 0 to 1. Only for a multi-label model; a CSV file has it as JSON."""
    embedding: NotRequired[list[float]]
    """The vector of the text. Only for an embedding model, in place of labels and scores; a CSV file has it as JSON."""
    entities: NotRequired[list[Entity]]
    """The entities of the text. Only for a token-classification model, in place of labels and scores; a CSV file has it
    as JSON."""


class PredictedFile(TypedDict):
    """What `toolchain predict -o FILE --json` prints."""

    bundle: str
    """Folder of the bundle."""
    artefact: str
    """What made the predictions: the name of a file of the bundle, `checkpoint`, or the address of a server."""
    file: str
    """Path of the file with the predictions."""
    rows: int
    """Number of rows in the file."""
