"""A number a pair of a query and a text, by which the texts of a query are ranked."""

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
    """A number a pair, of logits [rows, 1]. The score of an answer is its sigmoid.

    References are float64 [rows, 2]: the relevance, and the number of the query. Predictions are float64 [rows].
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
        """What the model gives for each row, in words: a score."""
        return "a score"

    @property
    def outputs(self) -> dict[str, int | None]:
        """The score, and the number that it is the sigmoid of."""
        return {"SCORE": 1, "LOGITS": 1}

    def check(self) -> None:
        """Refuse a model of several outputs, and a task without pairs.

        Raises:
            InputError: one of them.
        """
        if len(self.labels) != 1:
            raise InputError(
                f"--task {self.task.name}: the task ranks texts by one number, and the model returns "
                f"{', '.join(self.labels)}. Give a checkpoint with one output."
            )
        if len(self.task.text_columns) != 2:
            raise InputError(
                f"--task {self.task.name}: a reranker reads a query and a text. Name two text columns, the query first."
            )

    def read(self, rows: Rows) -> Values:
        """Return relevance and query of rows, float64 [rows, 2]; without a column of queries, their text tells them.

        Raises:
            InputError: a relevance is not a number from 0 on; see also `read_numbers`.
        """
        relevance = read_numbers(rows, list(self.labels))
        if (relevance < 0).any():
            row = int(np.argmax(relevance < 0))
            raise InputError(
                f"{rows.source}: row {rows.number(row)} has the relevance {rows.labels[row]!r}. Write 0 for a text "
                "that does not fit its query, and a larger number for one that does."
            )
        numbers: dict[Hashable, int] = {}
        keys = rows.queries if rows.queries is not None else [query for query, _ in rows.texts]
        return np.stack([relevance, [numbers.setdefault(str(key), len(numbers)) for key in keys]], axis=1)

    def decide(self, logits: Logits) -> Values:
        """Return the number of each pair, float64 [rows]."""
        return logits[:, 0].astype(np.float64)

    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references, float64 [rows, 2], and the numbers of the pairs, float64 [rows]."""
        return Predictions(references, self.decide(logits), logits)

    def shown(self, value: Any) -> str:
        """Return a number as Python writes it, of a reference the relevance."""
        return str(float(np.ravel(value)[0]))

    def divergence(self, reference: Logits, candidate: Logits) -> None:
        """Return None: a score of its own is no distribution."""
        return

    def best(self, logits: Logits, count: int | None) -> list[list[Prediction]]:
        """Return one prediction without a label for each pair."""
        return [[{"label": None, "score": score}] for score in self.scores(logits)[:, 0].tolist()]

    def responses(self, logits: Logits) -> list[Response]:
        """Return the score of each pair."""
        return [{"label": None, "score": score} for score in self.scores(logits)[:, 0].tolist()]

    @property
    def example(self) -> Response:
        """A score."""
        return {"label": None, "score": 0.98}

    def texts(self, logits: Logits) -> list[str]:
        """Return each score in the fewest digits that identify the float32."""
        return [str(score) for score in self.scores(logits)[:, 0]]

    def scores(self, logits: Logits) -> Logits:
        """Return the sigmoid of each number, float32 [rows, 1]."""
        return sigmoid(logits)
