"""The head for one number per row, which is a regression. A row has no label, and its score is the number itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.base.tensors import Logits
from toolchain.data.labels import read_numbers
from toolchain.data.metrics import Values
from toolchain.data.rows import Rows
from toolchain.errors import InputError
from toolchain.heads.contract import Head
from toolchain.heads.predictions import Predictions
from toolchain.records.prediction import Prediction
from toolchain.records.serving import Response


@dataclass(frozen=True)
class Number(Head):
    """The head of a regression model, whose logits are [rows, 1]. Predictions are float64 [rows]."""

    what = "a regression model"
    no_cascade = "a number has no confidence"
    metrics = ("pearson", "spearman")
    defaults = metrics
    probabilities = None

    @property
    def gives(self) -> str:
        """What the model gives for each row, as a phrase for a model card: a number."""
        return "a number"

    def check(self) -> None:
        """Refuse a model with several outputs.

        Raises:
            InputError: the model has several outputs.
        """
        if len(self.labels) != 1:
            raise InputError(
                f"--task {self.task.name}: the task is a regression, but the model has the outputs "
                f"{', '.join(self.labels)}. Choose the task that the model was trained for."
            )

    def read(self, rows: Rows) -> Values:
        """Return the labels of rows as numbers, float64 [rows]; see `read_numbers`."""
        return read_numbers(rows, list(self.labels))

    def decide(self, logits: Logits) -> Values:
        """Return the number of each row, float64 [rows]."""
        return logits[:, 0].astype(np.float64)

    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references and predictions, both float64 [rows]."""
        return Predictions(references, self.decide(logits), logits)

    def shown(self, value: Any) -> str:
        """Return a number as Python writes it."""
        return str(float(value))

    def divergence(self, reference: Logits, candidate: Logits) -> None:
        """Return None: a number has no probabilities."""
        return

    def best(self, logits: Logits, count: int | None) -> list[list[Prediction]]:
        """Return one prediction for each row, without a label; its score is the number."""
        return [[{"label": None, "score": value}] for value in logits[:, 0].tolist()]

    def responses(self, logits: Logits) -> list[Response]:
        """Return the response of `POST /classify` for each row: its number as the score, without a label."""
        return [{"label": None, "score": value} for value in logits[:, 0].tolist()]

    @property
    def example(self) -> Response:
        """An example of a response, with a number."""
        return {"label": None, "score": 0.98}

    def texts(self, logits: Logits) -> list[str]:
        """Return the number of each row as text, with the fewest digits that identify the float32."""
        return [str(value) for value in logits[:, 0]]

    def scores(self, logits: Logits) -> Logits:
        """Return the numbers as they are."""
        return logits
