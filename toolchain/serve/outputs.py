"""Logits to outputs: labels, scores, and the tensors of a response."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from toolchain.heads.contract import Head
from toolchain.records.serving import Response
from toolchain.serve.protocol import Tensor
from toolchain.tensors import Array, Logits


def tensors(logits: Logits, head: Head, outputs: tuple[str, ...], classes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Return the requested outputs: LABEL [n, 1], SCORE and LOGITS [n, classes].

    An output in `classes` becomes its best classes instead: BYTES [n, that number or all].
    """
    make: dict[str, Callable[[], Tensor]] = {
        "LABEL": lambda: Tensor("LABEL", "BYTES", _bytes_column(head.texts(logits))),
        "SCORE": lambda: Tensor("SCORE", "FP32", head.scores(logits)),
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


def classifications(logits: Logits, head: Head, cut: NDArray[np.bool_] | None = None) -> list[Response]:
    """Return the head's response to each row, and whether it was cut, if it was."""
    found = head.responses(logits)
    for row in np.flatnonzero(cut).tolist() if cut is not None else ():
        found[row]["truncated"] = True
    return found
