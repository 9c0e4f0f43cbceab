"""Conversion of logits to what a response contains: labels, scores, and output tensors."""

from collections.abc import Mapping
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Array, Logits
from toolchain.heads.contract import Head
from toolchain.records.serving import Classification, Response
from toolchain.serve.protocol import Tensor


def tensors(logits: Logits, head: Head, outputs: tuple[str, ...], classes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """Return the requested outputs as tensors, which the head computes from the logits.

    An output of texts is BYTES [rows, 1], an output of numbers FP32 [rows, numbers]. `classes` maps the name of an
    output to a number k. This output is replaced by its k best classes, or by all if it has fewer: BYTES [rows,
    classes].
    """

    def tensor(name: str) -> Tensor:
        found = head.output(name, logits)
        return Tensor(name, "BYTES", _bytes_column(found)) if isinstance(found, list) else Tensor(name, "FP32", found)

    return tuple(_best(tensor(name), classes[name]) if name in classes else tensor(name) for name in outputs)


def _best(tensor: Tensor, count: int) -> Tensor:
    """Return the `count` best classes of each row, the best first, in Triton's form `value:index`."""
    order = np.argsort(-tensor.array, axis=1, kind="stable")[:, :count]
    texts = [[b"%f:%d" % (row[index], index) for index in best] for row, best in zip(tensor.array, order, strict=True)]
    return Tensor(tensor.name, "BYTES", np.array(texts, object))


def _bytes_column(texts: list[str]) -> Array:
    column = np.empty((len(texts), 1), object)
    column[:, 0] = [text.encode() for text in texts]
    return column


def classifications(
    logits: Logits, head: Head, cut: NDArray[np.bool_] | None = None, stages: list[str] | None = None
) -> list[Response]:
    """Return the head's response to each row.

    A response also has `truncated`, if `cut` says that the text was cut, and `stage`, if `stages` has the stage of a
    cascade that answered the row.
    """
    found = head.responses(logits)
    for row in np.flatnonzero(cut).tolist() if cut is not None else ():
        found[row]["truncated"] = True
    for response, stage in zip(found, stages or [], strict=False):
        if stage:
            cast(Classification, response)["stage"] = cast(Literal["first", "second"], stage)
    return found
