"""The head for one vector per text. Two texts are compared by the cosine of their vectors."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits, RowShape
from toolchain.data.labels import read_numbers
from toolchain.data.metrics import Values
from toolchain.data.rows import Rows, Text
from toolchain.errors import InputError, UsageError
from toolchain.heads.contract import Head
from toolchain.heads.predictions import Predictions
from toolchain.records.prediction import Answer, Prediction
from toolchain.records.result import AgreementFigures
from toolchain.records.serving import Response


@dataclass(frozen=True)
class Embedding(Head):
    """The head of an embedding model, which gives a vector of `width` numbers for each text.

    A row of data is a pair of texts with a similarity score. Predictions are the cosines of the pairs, float64 [rows];
    their logits are the vectors of both texts, float32 [rows, 2, width].
    """

    what = "an embedding model"
    pipeline = "sentence-similarity"
    metrics = ("spearman_cosine",)
    defaults = metrics
    raw = "EMBEDDING"
    probabilities = None
    routes = ("/v1/embeddings",)
    made: ClassVar[dict[str, str]] = {"EMBEDDING": "none"}
    # Vectors may have length 1 and thus small numbers, so a difference is always relative to the largest number.
    least_scale = 0.0

    @property
    def gives(self) -> str:
        """What the model gives for each text, as a phrase for a model card: a vector of `width` numbers."""
        return f"a vector of {self.width} numbers"

    @property
    def texts_per_row(self) -> int:
        """The number of texts that the model reads as one sequence: 1, also for pairs."""
        return 1

    @property
    def row(self) -> RowShape:
        """The shape of the logits of one text: a vector."""
        return (self.width,)

    @property
    def outputs(self) -> dict[str, int | None]:
        """The output tensor of a served model: the vector."""
        return {"EMBEDDING": self.width}

    def sequences(self, texts: Sequence[Text]) -> list[Text]:
        """Return the sequences that the model reads for pairs of texts: each text alone."""
        return [(part,) for text in texts for part in text]

    def check(self) -> None:
        """Refuse a task whose rows are not pairs of texts.

        Raises:
            InputError: the task does not have two columns of texts.
        """
        if len(self.task.text_columns) != 2:
            raise InputError(
                f"--task {self.task.name}: this is {self.what}, which is scored on pairs of texts. "
                "Name two text columns, and a label column with a number for each pair."
            )

    def read(self, rows: Rows) -> Values:
        """Return the similarity scores of pairs in the data, float64 [rows]; see `read_numbers`."""
        return read_numbers(rows, ["score"])

    def decide(self, logits: Logits) -> Values:
        """Return the vectors as float64 [texts, width]."""
        return logits.astype(np.float64)

    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references and the cosines of pairs, both float64 [rows].

        `logits` has the vectors of the first and the second text of each pair one after the other.
        """
        pairs = logits.reshape(-1, 2, logits.shape[-1])
        return Predictions(references, cosines(pairs[:, 0], pairs[:, 1]), pairs)

    def agreement(self, found: Predictions, reference: Predictions) -> AgreementFigures:
        """Return the minimum and the 1 % quantile of the cosines between the vectors and the reference's vectors."""
        near = self.nearness(found.logits, reference.logits)
        return {"cosine_min": float(near.min()), "cosine_p01": float(np.quantile(near, 0.01))}

    def shown(self, value: Any) -> str:
        """Return a score or a cosine as Python writes it."""
        return str(float(value))

    def divergence(self, reference: Logits, candidate: Logits) -> None:
        """Return None: a vector has no probabilities."""
        return

    def nearness(self, candidate: Logits, reference: Logits) -> NDArray[np.float64]:
        """Return the cosine between each vector and the reference's vector, float64 [...]."""
        return cosines(candidate, reference)

    def answers(self, logits: Logits) -> list[Answer]:
        """Return the vector of each text."""
        return [{"embedding": vector} for vector in logits.tolist()]

    def best(self, logits: Logits, count: int | None) -> list[list[Prediction]]:
        """Refuse to return the best labels, because a vector has none.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"top_k={count}: {self.what} has no labels. Leave top_k out.")

    def responses(self, logits: Logits) -> list[Response]:
        """Return the vector of each text."""
        return [{"embedding": vector} for vector in logits.tolist()]

    @property
    def example(self) -> Response:
        """An example of a response, with the beginning of a vector."""
        return {"embedding": [0.02, -0.05, 0.01]}

    def texts(self, logits: Logits) -> list[str]:
        """Return the vector of each text as a JSON list."""
        return [json.dumps(vector) for vector in logits.tolist()]

    def scores(self, logits: Logits) -> Logits:
        """Return the vectors as they are."""
        return logits


def cosines(one: Logits, other: Logits) -> NDArray[np.float64]:
    """Return the cosines between vectors, float32 [..., width], as float64 [...]; 0 if a vector has only zeros."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.asarray((first * second).sum(-1) / np.where(lengths > 0, lengths, 1))
