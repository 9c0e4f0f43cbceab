"""The contract of a head."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits, RowShape
from toolchain.data.metrics import METRICS, Values
from toolchain.data.rows import Rows, Text
from toolchain.data.tasks import Task
from toolchain.heads.distance import FAR, Distance
from toolchain.heads.predictions import Predictions, same
from toolchain.records.prediction import Answer, Prediction
from toolchain.records.result import AgreementFigures, LabelFigures
from toolchain.records.serving import Response

if TYPE_CHECKING:
    from toolchain.heads.tokens import Align


@dataclass(frozen=True)
class Head(ABC):
    """What is made of a model's logits, float32 [rows, *row]; `labels` are the names of its outputs, in order."""

    task: Task
    labels: tuple[str, ...]
    # Numbers of a vector, of a model without labels.
    width: int = 0

    # What it is, in words, for messages.
    what: ClassVar[str]
    # The metrics that it can be scored by, and those of a task that names none, the main one first.
    metrics: ClassVar[tuple[str, ...]]
    defaults: ClassVar[tuple[str, ...]]
    # The one of `outputs` that has the logits as they are, by which a server is evaluated; None if none has.
    raw: ClassVar[str | None] = "LOGITS"
    # The paths of a service, beside /classify, that respond in the form of another server.
    routes: ClassVar[tuple[str, ...]] = ()
    # How each of `outputs` is made of the logits, `none` or `sigmoid`; None for those of a classifier.
    made: ClassVar[dict[str, str] | None] = None
    # The name of its task on the hub.
    pipeline: ClassVar[str] = "text-classification"
    # What joins the words of a row that lists them; None for a head whose rows are texts.
    join: ClassVar[str | None] = None
    # Why no first stage of a cascade can answer for such a model; None if one can.
    no_cascade: ClassVar[str | None] = "only a model of one label a row says how sure it is of a whole row"
    # What makes probabilities of its logits, `softmax` or `sigmoid`; None for numbers that are none.
    probabilities: ClassVar[str | None] = "softmax"
    # The size of logits from which on a difference counts as a share of them, not as it is.
    least_scale: ClassVar[float] = 1.0

    @property
    def texts_per_row(self) -> int:
        """The number of texts that the model reads together: 2 for pairs."""
        return len(self.task.text_columns)

    def aligned(self, align: "Align") -> Self:
        """Return the head with the function that finds the tokens of texts, which only a head of tokens needs."""
        return self

    def about(self, texts: Sequence[Text]) -> Self:
        """Return the head for the rows of these texts, of which only a head of tokens makes another."""
        return self

    def sequences(self, texts: Sequence[Text]) -> list[Text]:
        """Return what the model reads of rows of data, one after the other: each row is one sequence."""
        return [*texts]

    @property
    def row(self) -> RowShape:
        """The shape of a row of logits: a number for each label. None stands for the tokens of the row."""
        return (len(self.labels),)

    @property
    def outputs(self) -> dict[str, int | None]:
        """The tensors of a served model: name -> numbers of a row, or None for a text."""
        return {"LABEL": None, "SCORE": len(self.labels), "LOGITS": len(self.labels)}

    def output(self, name: str, logits: Logits) -> list[str] | Logits:
        """Return one of `outputs`: a text for each row, or numbers, float32 [rows, numbers]."""
        return self.texts(logits) if name == "LABEL" else self.scores(logits) if name == "SCORE" else logits

    @property
    def threshold(self) -> float | None:
        """The score from which a row has a label, above 0 and below 1; None for a head whose rows have one or none."""
        return None

    @property
    @abstractmethod
    def gives(self) -> str:
        """What the model gives for each row, in words."""

    # Scores: labels of the data in, predictions out.

    @abstractmethod
    def check(self) -> None:
        """Refuse a model whose outputs do not fit the task, with an InputError."""

    @abstractmethod
    def read(self, rows: Rows) -> Values:
        """Return the labels of rows as `predict` takes them. An InputError names the row that cannot be read."""

    @abstractmethod
    def decide(self, logits: Logits) -> Values:
        """Return the prediction of each row, in the order of the model's outputs."""

    @abstractmethod
    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references and predictions of rows, both in the order of the task's labels."""

    @property
    def names(self) -> list[str] | None:
        """The names of the labels in the order of `predict`; None for a head without labels."""
        return None

    @property
    def key(self) -> list[Any]:
        """What predictions depend on beside logits and references, as JSON."""
        return [self.names]

    def per_label(self, found: Predictions) -> dict[str, LabelFigures] | None:
        """Return figures of each label; None for a head whose rows have one label or none."""
        return None

    def agreement(self, found: Predictions, reference: Predictions) -> AgreementFigures:
        """Return what this head says of an agreement beside the share of equal labels."""
        return {}

    @abstractmethod
    def shown(self, value: Any) -> str:
        """Return a reference or a prediction of `predict` as a text."""

    # Errors of a graph: the choice of INT8 methods needs them, and no labels.

    @abstractmethod
    def divergence(self, reference: Logits, candidate: Logits) -> float | None:
        """Return the mean KL divergence of the probabilities, in nats; None without probabilities."""

    def nearness(self, candidate: Logits, reference: Logits) -> NDArray[np.float64] | None:
        """Return the cosine of each vector to the reference's; None for logits, which are compared as they are."""
        return None

    def margins(self, logits: Logits) -> NDArray[np.float32] | None:
        """Return how far each row is from another prediction, float32 [rows]; None for a head without labels."""
        return None

    def distance(self, reference: Logits, candidate: Logits) -> Distance:
        """Return the distance of a candidate's logits from the reference's; those that are not finite are FAR."""
        unchanged = same(self.decide(reference), self.decide(candidate))
        if not np.isfinite(candidate).all():
            return Distance(None, FAR, None) if unchanged is None else Distance(FAR, FAR, 1.0)
        rms = float(np.sqrt(np.square(reference.astype(np.float64) - candidate).mean()))
        changed = None if unchanged is None else self.change(self.decide(reference), self.decide(candidate))
        return Distance(self.divergence(reference, candidate), rms, changed)

    def change(self, reference: Values, candidate: Values) -> float:
        """Return the share of rows with another prediction, 0 to 1: what errors of a graph may cost the main metric."""
        unchanged = same(reference, candidate)
        assert unchanged is not None, "only of a head with labels"
        return float((~unchanged).mean())

    def _drop(self, reference: Values, candidate: Values) -> float:
        """Return the drop of the main metric if the reference's predictions were the labels of the data, 0 to 1.

        Where a row has many labels, one of them that changes is not a row lost.
        """
        metric = METRICS[self.task.primary]
        return metric(reference, reference) - metric(reference, candidate)

    # Answers: to Python and files, to a service's clients, and in tensors.

    def answers(self, logits: Logits) -> list[Answer]:
        """Return the answer for each row: its best label with the score, unless a head has another form."""
        return [best for (best,) in self.best(logits, 1)]

    def best(self, logits: Logits, count: int | None) -> list[list[Prediction]]:
        """Return the `count` best labels of each row with their scores, best first; None for all of them."""
        order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
        best = np.take_along_axis(self.scores(logits), order, axis=1).tolist()
        return [
            [{"label": self.labels[index], "score": score} for index, score in zip(indices, row, strict=True)]
            for indices, row in zip(order.tolist(), best, strict=True)
        ]

    @abstractmethod
    def responses(self, logits: Logits) -> list[Response]:
        """Return the response of `POST /classify` to each row."""

    @property
    @abstractmethod
    def example(self) -> Response:
        """A response that a model may give, to show its form."""

    @abstractmethod
    def texts(self, logits: Logits) -> list[str]:
        """Return the LABEL of each row."""

    @abstractmethod
    def scores(self, logits: Logits) -> Logits:
        """Return the SCORE of each row, float32 [rows, outputs]."""
