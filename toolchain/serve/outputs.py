"""Logits to outputs: labels, scores, and the tensors of a response."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from toolchain.evaluation.classifier import scores
from toolchain.records.serving import Classification
from toolchain.runtimes.distance import Logits
from toolchain.serve.protocol import Tensor
from toolchain.tensors import Array


def labels(logits: Logits, names: list[str]) -> list[str]:
    """Return the name of the class with the highest logit in each row; a single logit (regression) as text."""
    if logits.shape[1] == 1:
        return [str(value) for value in logits[:, 0]]
    return [names[index] for index in logits.argmax(axis=1).tolist()]


def tensors(
    logits: Logits, names: list[str], outputs: tuple[str, ...], classes: Mapping[str, int]
) -> tuple[Tensor, ...]:
    """Return the requested outputs: LABEL [n, 1], SCORE and LOGITS [n, classes].

    An output in `classes` becomes its best classes instead: BYTES [n, that number or all].
    """
    make: dict[str, Callable[[], Tensor]] = {
        "LABEL": lambda: Tensor("LABEL", "BYTES", _bytes_column(labels(logits, names))),
        "SCORE": lambda: Tensor("SCORE", "FP32", scores(logits)),
        "LOGITS": lambda: Tensor("LOGITS", "FP32", logits),
    }
    return tuple(_best(make[name](), classes[name]) if name in classes else make[name]() for name in outputs)


def _best(tensor: Tensor, count: int) -> Tensor:
    """Return the best classes of each row in Triton's form, `value:index`."""
    order = np.argsort(-tensor.array, axis=1, kind="stable")[:, :count]
    texts = [[b"%f:%d" % (row[index], index) for index in best] for row, best in zip(tensor.array, order, strict=True)]
    return Tensor(tensor.name, "BYTES", np.array(texts, object))


def _bytes_column(texts: list[str]) -> Array:
    column = np.empty((len(texts), 1), object)
    column[:, 0] = [text.encode() for text in texts]
    return column


def classifications(logits: Logits, names: list[str], cut: NDArray[np.bool_] | None = None) -> list[Classification]:
    """Return label, its score and the scores of all labels for each row, and whether it was cut, if it was.

    A regression has no label, and its score is the number, as in the Python API.
    """
    found: list[Classification]
    if logits.shape[1] == 1:
        found = [{"label": None, "score": value} for value in logits[:, 0].tolist()]
    else:
        found = [
            {"label": label, "score": max(row), "scores": dict(zip(names, row, strict=True))}
            for label, row in zip(labels(logits, names), scores(logits).tolist(), strict=True)
        ]
    for row in np.flatnonzero(cut) if cut is not None else ():
        found[row]["truncated"] = True
    return found
