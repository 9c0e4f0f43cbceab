"""The head for any number of labels per row: the labels whose sigmoid reaches the threshold."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits
from toolchain.data.labels import check_labels, order_of, read_labels
from toolchain.data.metrics import LABEL_SETS, Values
from toolchain.data.rows import Rows
from toolchain.errors import InputError
from toolchain.heads.contract import Head
from toolchain.heads.predictions import Predictions
from toolchain.heads.scores import sigmoid
from toolchain.records.prediction import Answer, LabelSet
from toolchain.records.result import AgreementFigures, LabelFigures
from toolchain.records.serving import Response

# The lowest score at which a row gets a label, unless the task or an option sets another threshold.
THRESHOLD = 0.5


@dataclass(frozen=True)
class Multilabel(Head):
    """The head of a model that gives any number of labels for each row. Predictions are bool [rows, labels]."""

    what = "a multi-label classifier"
    metrics = LABEL_SETS
    defaults = LABEL_SETS
    probabilities = "sigmoid"

    @property
    def threshold(self) -> float:
        """The lowest score at which a row gets a label, above 0 and below 1."""
        return THRESHOLD if self.task.threshold is None else self.task.threshold

    @property
    def gives(self) -> str:
        """What the model gives for each row, as a phrase for a model card: any of its labels."""
        return f"any of {', '.join(self.labels)}"

    def check(self) -> None:
        """Refuse a model with other labels than the task's.

        Raises:
            InputError: see `check_labels`.
        """
        check_labels(self.task, list(self.labels))

    def read(self, rows: Rows) -> Values:
        """Return which labels each row of data has, bool [rows, labels], in the order of the model's outputs.

        The labels of a row are a list of names or of indices, or such a list written as JSON. `read_labels` says how
        they are matched to the model's labels.

        Raises:
            InputError: the labels of a row are not a list, or the model lacks one of them.
        """
        lists = [_entries(rows, row) for row in range(len(rows))]
        owners = np.repeat(np.arange(len(rows)), [len(entries) for entries in lists])
        every = [label for entries in lists for label in entries]
        found = np.zeros((len(rows), len(self.labels)), bool)
        if every:
            one_each = Rows(
                rows.source,
                [rows.texts[row] for row in owners],
                every,
                rows.label_names,
                tuple(rows.number(row) for row in owners.tolist()),
            )
            found[owners, read_labels(one_each, self.task, list(self.labels))] = True
        return found

    def decide(self, logits: Logits) -> Values:
        """Return whether each label's score reaches the threshold, bool [rows, labels]."""
        return np.asarray(self.scores(logits) >= np.float32(self.threshold))

    def predict(self, references: Values, logits: Logits) -> Predictions:
        """Return references and predictions, both bool [rows, labels], in the order of the task's labels."""
        order = order_of(self.task, list(self.labels)) if self.task.labels else list(range(len(self.labels)))
        return Predictions(references[:, order], self.decide(logits)[:, order], logits)

    @property
    def names(self) -> list[str]:
        """The names of the labels, in the order of the columns of predictions."""
        return list(self.task.labels or self.labels)

    @property
    def key(self) -> list[Any]:
        """What predictions depend on besides logits and references: the names of the labels and the threshold."""
        return [self.names, self.threshold]

    def shown(self, value: Any) -> str:
        """Return the names of a row's labels, or a dash if it has none."""
        return ", ".join(name for name, chosen in zip(self.names, value, strict=True) if chosen) or "-"

    def per_label(self, found: Predictions) -> dict[str, LabelFigures]:
        """Return precision, recall and F1 of each label, and the number of rows that have it."""
        from sklearn.metrics import precision_recall_fscore_support

        figures = precision_recall_fscore_support(found.references, found.predicted, average=None, zero_division=0.0)
        return {
            name: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "rows": int(rows)}
            for name, precision, recall, f1, rows in zip(self.names, *figures, strict=True)
        }

    def agreement(self, found: Predictions, reference: Predictions) -> AgreementFigures:
        """Return for each label the fraction of rows in which both predictions have it or both lack it."""
        shares = (found.predicted == reference.predicted).mean(axis=0).tolist()
        return {"per_label": dict(zip(self.names, shares, strict=True))}

    def divergence(self, reference: Logits, candidate: Logits) -> float:
        """Return the mean KL divergence of the candidate from the reference, in nats.

        The divergence of a row is the sum over its labels, each of which has two outcomes.
        """
        wide, other = reference.astype(np.float64), candidate.astype(np.float64)
        chance = 1 / (1 + np.exp(-np.clip(wide, -700, 700)))
        with_it = chance * (np.logaddexp(0, -other) - np.logaddexp(0, -wide))
        without = (1 - chance) * (np.logaddexp(0, other) - np.logaddexp(0, wide))
        return float((with_it + without).sum(axis=1).mean())

    def change(self, reference: Values, candidate: Values) -> float:
        """Return how much the main metric would drop if the reference's labels were the true ones, 0 to 1."""
        return self._drop(reference, candidate)

    def margins(self, logits: Logits) -> NDArray[np.float32]:
        """Return the smallest difference between a logit of each row and the threshold's logit, float32 [rows]."""
        return np.asarray(np.abs(logits - np.float32(np.log(self.threshold / (1 - self.threshold)))).min(axis=1))

    def answers(self, logits: Logits) -> list[Answer]:
        """Return the labels of each row, highest score first, and the scores of all labels."""
        return [*self._sets(logits)]

    def _sets(self, logits: Logits) -> list[LabelSet]:
        scores, chosen = self.scores(logits), self.decide(logits)
        order = np.argsort(-scores, axis=1, kind="stable")
        return [
            {
                "labels": [self.labels[index] for index in indices if has[index]],
                "scores": dict(zip(self.labels, row, strict=True)),
            }
            for indices, has, row in zip(order.tolist(), chosen.tolist(), scores.tolist(), strict=True)
        ]

    def responses(self, logits: Logits) -> list[Response]:
        """Return the response of `POST /classify` for each row, the same as its answer."""
        return [*self._sets(logits)]

    @property
    def example(self) -> Response:
        """An example of a response: the last label, with a score of 0.98."""
        return {"labels": [self.labels[-1]], "scores": dict.fromkeys(self.labels, 0.02) | {self.labels[-1]: 0.98}}

    def texts(self, logits: Logits) -> list[str]:
        """Return the labels of each row as a JSON list, in the order of the model's outputs."""
        return [
            json.dumps([name for name, chosen in zip(self.labels, row, strict=True) if chosen], ensure_ascii=False)
            for row in self.decide(logits).tolist()
        ]

    def scores(self, logits: Logits) -> Logits:
        """Return the sigmoid of each logit, float32 [rows, labels]."""
        return sigmoid(logits)


def _entries(rows: Rows, row: int) -> list[Any]:
    """Return the labels of one row as a list.

    Raises:
        InputError: they are not a list, or text that is not a JSON list.
    """
    cell = rows.labels[row]
    try:
        found = json.loads(cell) if isinstance(cell, str) else cell
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise InputError(
            f"{rows.source}: row {rows.number(row)} has the labels {cell!r:.100}, which are not a list. Write a JSON "
            'list such as ["a", "b"] or [], or name a column for each label with label_columns in the task\'s TOML.'
        )
    return found
