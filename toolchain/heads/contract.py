"""The contract of a head: the base class of all heads."""

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
    """What a model's logits mean for a task: their labels, predictions, scores and answers.

    Logits are float32 [rows, *row]. `labels` are the names of the model's outputs, in their order.
    """

    task: Task
    labels: tuple[str, ...]
    # Length of the vectors of an embedding model, which has no labels; 0 for other models.
    width: int = 0

    # The kind of model, for messages, such as "a reranker".
    what: ClassVar[str]
    # The metrics that fit the head, and the default metrics for a task that names none, the main metric first.
    metrics: ClassVar[tuple[str, ...]]
    defaults: ClassVar[tuple[str, ...]]
    # Name of the output with the unchanged logits, which `eval` reads from a server; None if there is none.
    raw: ClassVar[str | None] = "LOGITS"
    # Paths of the HTTP service, in addition to /classify, that respond in the form of another server.
    routes: ClassVar[tuple[str, ...]] = ()
    # Name of an output -> what computes it from the logits, such as `none` or `sigmoid`; None if the outputs are those
    # of a classifier.
    made: ClassVar[dict[str, str] | None] = None
    # Name of the head's task on the Hugging Face Hub.
    pipeline: ClassVar[str] = "text-classification"
    # Text that joins the words of a row that is a list of words; None for a head whose rows are texts.
    join: ClassVar[str | None] = None
    # Why such a model cannot have the first stage of a cascade, as text for a message; None if it can.
    no_cascade: ClassVar[str | None] = "only a single-label classifier gives a confidence for the whole row"
    # Function that turns the logits into probabilities, `softmax` or `sigmoid`; None if there are no probabilities.
    probabilities: ClassVar[str | None] = "softmax"
    # `verify` allows a difference of logits relative to the largest logit, or to this value if the largest logit is
    # smaller.
    least_scale: ClassVar[float] = 1.0

    @property
    def texts_per_row(self) -> int:
        """The number of texts that the model reads as one sequence: 2 for pairs."""
        return len(self.task.text_columns)

    def aligned(self, align: "Align") -> Self:
        """Return a head that uses `align` to find the tokens of texts. Only a head of tokens needs `align`."""
        return self

    def about(self, texts: Sequence[Text]) -> Self:
        """Return a head that interprets the logits of these texts. Only a head of tokens needs the texts."""
        return self

    def sequences(self, texts: Sequence[Text]) -> list[Text]:
        """Return the sequences that the model reads for rows of data. By default, each row is one sequence."""
        return [*texts]

    @property
    def row(self) -> RowShape:
        """The shape of the logits of one row: by default, a number for each label. None means the number of tokens."""
        return (len(self.labels),)

    @property
    def outputs(self) -> dict[str, int | None]:
        """The output tensors of a served model: name -> how many numbers a row has, or None for a text."""
        return {"LABEL": None, "SCORE": len(self.labels), "LOGITS": len(self.labels)}

    def output(self, name: str, logits: Logits) -> list[str] | Logits:
        """Return the output tensor `name` of a served model: a text for each row, or float32 [rows, numbers]."""
        return self.texts(logits) if name == "LABEL" else self.scores(logits) if name == "SCORE" else logits

    @property
    def threshold(self) -> float | None:
        """The lowest score at which a row gets a label, between 0 and 1; None unless rows may have several labels."""
        return None

    @property
    @abstractmethod
    def gives(self) -> str:
        """What the model gives for each row, as a phrase for a model card."""

    # Methods for evaluation: they turn the labels of the data and the logits into references and predictions.

    @abstractmethod
    def check(self) -> None:
        """Raise an InputError if the outputs of the model do not fit the task."""

    @abstractmethod
    def read(self, rows: Rows) -> Values:
        """Return the labels of rows in the form that `predict` takes. An InputError names an invalid row."""

    @abstractmethod
    def decide(self, logits: Logits) -> Values:
        """Return the prediction of each row, with labels in the order of the model's outputs."""

    @abstractmethod
    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references and predictions of rows, both with labels in the order of the task."""

    @property
    def names(self) -> list[str] | None:
        """The names of the labels, in the order that `predict` uses; None for a head without labels."""
        return None

    @property
    def key(self) -> list[Any]:
        """What predictions depend on besides logits and references, as JSON values for a digest."""
        return [self.names]

    def per_label(self, found: Predictions) -> dict[str, LabelFigures] | None:
        """Return label -> precision, recall, F1 and number of rows; None unless a row may have several labels."""
        return None

    def agreement(self, found: Predictions, reference: Predictions) -> AgreementFigures:
        """Return how far two models' predictions agree, in addition to the fraction of rows with equal labels."""
        return {}

    @abstractmethod
    def shown(self, value: Any) -> str:
        """Return as text the reference or the prediction of one row, which `predict` returned."""

    # Methods that measure the error of a graph without labels. The choice of INT8 methods uses them.

    @abstractmethod
    def divergence(self, reference: Logits, candidate: Logits) -> float | None:
        """Return the mean KL divergence of the candidate's probabilities from the reference's, in nats.

        Return None for a head without probabilities.
        """

    def nearness(self, candidate: Logits, reference: Logits) -> NDArray[np.float64] | None:
        """Return the cosine between each vector and the reference's vector; None for a head without vectors."""
        return None

    def margins(self, logits: Logits) -> NDArray[np.float32] | None:
        """Return how much the logits of each row must change to change the row's prediction, float32 [rows].

        Return None for a head without labels.
        """
        return None

    def distance(self, reference: Logits, candidate: Logits) -> Distance:
        """Return the distance of the candidate's logits from the reference's; FAR if one of them is not finite."""
        unchanged = same(self.decide(reference), self.decide(candidate))
        if not np.isfinite(candidate).all():
            return Distance(None, FAR, None) if unchanged is None else Distance(FAR, FAR, 1.0)
        rms = float(np.sqrt(np.square(reference.astype(np.float64) - candidate).mean()))
        changed = None if unchanged is None else self.change(self.decide(reference), self.decide(candidate))
        return Distance(self.divergence(reference, candidate), rms, changed)

    def change(self, reference: Values, candidate: Values) -> float:
        """Return the fraction of rows whose prediction differs, 0 to 1: an estimate of the drop of the main metric."""
        unchanged = same(reference, candidate)
        assert unchanged is not None, "`change` needs a head with labels"
        return float((~unchanged).mean())

    def _drop(self, reference: Values, candidate: Values) -> float:
        """Return how much the main metric would drop if the reference's predictions were the true labels, 0 to 1.

        Multi-label heads use it as `change`, because one changed label does not make a row wrong.
        """
        metric = METRICS[self.task.primary]
        return metric(reference, reference) - metric(reference, candidate)

    # Methods that turn logits into answers: for Python callers and files, for clients of a service, and as tensors.

    def answers(self, logits: Logits) -> list[Answer]:
        """Return the answer for each row, for Python callers and files: by default, its best label with the score."""
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
        """Return the response of `POST /classify` for each row."""

    @property
    @abstractmethod
    def example(self) -> Response:
        """An example of a response, which shows the form of all responses."""

    @abstractmethod
    def texts(self, logits: Logits) -> list[str]:
        """Return the prediction of each row as text. It is the output LABEL of a served model."""

    @abstractmethod
    def scores(self, logits: Logits) -> Logits:
        """Return the scores of each row, float32 [rows, outputs]. They are the output SCORE of a served model."""
