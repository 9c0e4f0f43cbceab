"""The head of rerankers: a number for each pair of a query and a text, by which the texts of a query are ranked."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from toolchain.base.tensors import Logits
from toolchain.data.labels import read_numbers
from toolchain.data.metrics import OF_QUERIES, Values
from toolchain.data.rows import Rows
from toolchain.errors import InputError
from toolchain.heads.contract import Head
from toolchain.heads.predictions import Predictions
from toolchain.heads.scores import sigmoid
from toolchain.records.prediction import Prediction
from toolchain.records.serving import Response


@dataclass(frozen=True)
class Rerank(Head):
    """The head of a reranker, which gives a logit for each pair, [rows, 1]. The score is the sigmoid of the logit.

    References are float64 [rows, 2]: the relevance of the text, and the index of the query. Predictions are the
    numbers, float64 [rows].
    """

    what = "a reranker"
    pipeline = "text-ranking"
    metrics = tuple(OF_QUERIES)
    defaults = metrics
    routes = ("/rerank",)
    probabilities = "sigmoid"
    made: ClassVar[dict[str, str]] = {"SCORE": "sigmoid", "LOGITS": "none"}

    @property
    def gives(self) -> str:
        """What the model gives for each pair, as a phrase for a model card: a score."""
        return "a score"

    @property
    def outputs(self) -> dict[str, int | None]:
        """The output tensors of a served model: the score, and the logit whose sigmoid is the score."""
        return {"SCORE": 1, "LOGITS": 1}

    def check(self) -> None:
        """Refuse a model with several outputs, and a task whose rows are not pairs.

        Raises:
            InputError: the model has several outputs, or the task does not have two text columns.
        """
        if len(self.labels) != 1:
            raise InputError(
                f"--task {self.task.name}: the task ranks texts by one number, but the model has the outputs "
                f"{', '.join(self.labels)}. Give a checkpoint with one output."
            )
        if len(self.task.text_columns) != 2:
            raise InputError(
                f"--task {self.task.name}: a reranker reads a query and a text. Name two text columns, the query first."
            )

    def read(self, rows: Rows) -> Values:
        """Return the relevance of each row and the index of its query, float64 [rows, 2].

        If the data have no column of query ids, rows with the same query text belong to one query.

        Raises:
            InputError: a relevance is negative or not a number; see also `read_numbers`.
        """
        relevance = read_numbers(rows, list(self.labels))
        if (relevance < 0).any():
            row = int(np.argmax(relevance < 0))
            raise InputError(
                f"{rows.source}: row {rows.number(row)} has the relevance {rows.labels[row]!r}. Write 0 for a text "
                "that does not fit its query, and a larger number for a text that does."
            )
        numbers: dict[Hashable, int] = {}
        keys = rows.queries if rows.queries is not None else [query for query, _ in rows.texts]
        return np.stack([relevance, [numbers.setdefault(str(key), len(numbers)) for key in keys]], axis=1)

    def decide(self, logits: Logits) -> Values:
        """Return the logit of each pair, float64 [rows]."""
        return logits[:, 0].astype(np.float64)

    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references, float64 [rows, 2], and the logits of the pairs, float64 [rows]."""
        return Predictions(references, self.decide(logits), logits)

    def shown(self, value: Any) -> str:
        """Return a prediction, or the relevance of a reference, as Python writes the number."""
        return str(float(np.ravel(value)[0]))

    def divergence(self, reference: Logits, candidate: Logits) -> None:
        """Return None: a single score is not a probability distribution."""
        return

    def best(self, logits: Logits, count: int | None) -> list[list[Prediction]]:
        """Return one prediction for each pair: its score, without a label."""
        return [[{"label": None, "score": score}] for score in self.scores(logits)[:, 0].tolist()]

    def responses(self, logits: Logits) -> list[Response]:
        """Return the response of `POST /classify` for each pair: its score, without a label."""
        return [{"label": None, "score": score} for score in self.scores(logits)[:, 0].tolist()]

    @property
    def example(self) -> Response:
        """An example of a response, with a score."""
        return {"label": None, "score": 0.98}

    def texts(self, logits: Logits) -> list[str]:
        """Return the score of each pair as text, with the fewest digits that identify the float32."""
        return [str(score) for score in self.scores(logits)[:, 0]]

    def scores(self, logits: Logits) -> Logits:
        """Return the sigmoid of each logit, float32 [rows, 1]."""
        return sigmoid(logits)
