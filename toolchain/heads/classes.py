"""The head for one class per row: the class with the highest logit. Its score is the softmax."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits
from toolchain.data.labels import check_labels, in_task_order, read_labels
from toolchain.data.metrics import Values
from toolchain.data.rows import Rows
from toolchain.errors import InputError
from toolchain.heads.contract import Head
from toolchain.heads.predictions import Predictions
from toolchain.heads.scores import margins, softmax
from toolchain.records.serving import Response


@dataclass(frozen=True)
class Classes(Head):
    """The head of a model that gives one class for each row. Predictions are indices of classes, int64 [rows]."""

    what = "a single-label classifier"
    no_cascade = None
    metrics = ("accuracy", "f1", "matthews_correlation")
    defaults = ("accuracy",)

    @property
    def gives(self) -> str:
        """What the model gives for each row, as a phrase for a model card: one of its labels."""
        return f"one of {', '.join(self.labels)}"

    def check(self) -> None:
        """Refuse a model with a single output, or with other labels than the task's.

        Raises:
            InputError: see `check_labels`.
        """
        if len(self.labels) == 1:
            raise InputError(
                f"--task {self.task.name}: the task has classes, but the model's only output is {self.labels[0]}. "
                "Choose the task that the model was trained for."
            )
        check_labels(self.task, list(self.labels))

    def read(self, rows: Rows) -> Values:
        """Return the label of each row as an index of the model's outputs, int64 [rows]; see `read_labels`."""
        return read_labels(rows, self.task, list(self.labels))

    def decide(self, logits: Logits) -> Values:
        """Return the index of the highest logit of each row, int64 [rows]."""
        return np.asarray(logits.argmax(axis=1))

    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references and predictions, both int64 [rows], as indices of the task's labels."""
        ordered_references, ordered = in_task_order(references, logits, self.task, list(self.labels))
        return Predictions(ordered_references, self.decide(ordered), logits)

    @property
    def names(self) -> list[str]:
        """The names of the classes that predictions are indices of."""
        return list(self.task.labels or self.labels)

    def shown(self, value: Any) -> str:
        """Return the name of the class with the index `value`."""
        return self.names[int(value)]

    def divergence(self, reference: Logits, candidate: Logits) -> float:
        """Return the mean KL divergence of the candidate's probabilities from the reference's, in nats."""
        p, q = _log_probabilities(reference), _log_probabilities(candidate)
        return float((np.exp(p) * (p - q)).sum(axis=1).mean())

    def margins(self, logits: Logits) -> NDArray[np.float32]:
        """Return the difference between the two highest logits of each row, float32 [rows]."""
        return margins(logits)

    def responses(self, logits: Logits) -> list[Response]:
        """Return the best label of each row, its score, and the scores of all labels."""
        return [
            {"label": label, "score": max(row), "scores": dict(zip(self.labels, row, strict=True))}
            for label, row in zip(self.texts(logits), self.scores(logits).tolist(), strict=True)
        ]

    @property
    def example(self) -> Response:
        """An example of a response: the last label, with a score of 0.98."""
        rest = [round(0.02 / (len(self.labels) - 1), 4)] * (len(self.labels) - 1)
        return {"label": self.labels[-1], "score": 0.98, "scores": dict(zip(self.labels, [*rest, 0.98], strict=True))}

    def texts(self, logits: Logits) -> list[str]:
        """Return the name of the class with the highest logit in each row."""
        return [self.labels[index] for index in logits.argmax(axis=1).tolist()]

    def scores(self, logits: Logits) -> Logits:
        """Return the softmax of each row, float32 [rows, classes]."""
        return softmax(logits)


def _log_probabilities(logits: Logits) -> NDArray[np.float64]:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(logits.astype(np.float64), axis=1))
