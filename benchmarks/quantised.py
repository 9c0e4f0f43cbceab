"""What ONNX Runtime's own tools make of a plain graph in INT8."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from toolchain.checkpoint.tokenize import Tokens, equal_length_batches
from toolchain.tensors import Batch

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
MAX_SLOTS = 1024
STRIDE = 1
"""Batches that a calibrator looks at together: more than one must be of the same length, and fill the memory."""


def dynamic(model: Path, made: Path) -> Path:
    """Quantise weights per output channel, and activations while running."""
    with silent():
        quantize_dynamic(plain(model), made, per_channel=True, weight_type=QuantType.QInt8)
    return made


def static(model: Path, made: Path, tokens: Tokens, *, method: str) -> Path:
    """Quantise to Q/DQ with uint8 activations, the fast ones on a CPU, by the ranges of some rows."""
    with silent():
        quantize_static(
            plain(model),
            made,
            Batches(tokens),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            extra_options={"CalibStridedMinMax": STRIDE},
        )
    return made


def plain(model: Path) -> onnx.ModelProto:
    """Return the graph without the shapes that it states, which onnx's inference refuses once types change."""
    found = onnx.load(model)
    del found.graph.value_info[:]
    return found


@contextmanager
def silent() -> Iterator[None]:
    """Keep back progress, and the advice to pre-process first: with it the optimised graph of ours is the same."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Rows in batches of one length each: padding in the ranges costs 3 points of accuracy on the demo."""

    def __init__(self, tokens: Tokens) -> None:
        parts = equal_length_batches(tokens.lengths, max_slots=MAX_SLOTS)
        self.batches = [tokens.batch(part) for part in parts]
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Let `get_next` give these batches."""
        self.left: Iterator[Batch] = iter(self.batches[start_index:end_index])

    def get_next(self) -> Any:
        """Return the next batch, or None."""
        return next(self.left, None)
