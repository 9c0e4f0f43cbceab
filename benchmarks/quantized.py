"""INT8 graphs by ONNX Runtime's own quantization tools, on our export and on that of transformers."""

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

from toolchain.base.tensors import Batch
from toolchain.checkpoint.tokenize import Tokens, equal_length_batches

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
MAX_SLOTS = 1024
# Batches that a calibrator processes together. Several would need the same length, and memory for all of them.
STRIDE = 1


def dynamic(model: Path, made: Path) -> Path:
    """Quantize weights per output channel ahead of time, and activations at run time; return the file."""
    with silent():
        quantize_dynamic(plain(model), made, per_channel=True, weight_type=QuantType.QInt8)
    return made


def static(model: Path, made: Path, tokens: Tokens, *, method: str) -> Path:
    """Quantize to Q/DQ with uint8 activations, which a CPU runs fast, by ranges of these rows; return the file."""
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


def by_transformers(checkpoint: Path, batch: Batch, folder: Path) -> Path:
    """Export by transformers' exporter with its fusions for CPUs and dynamic INT8 weights per channel; return the file.

    The graph takes the inputs of `batch`, which is of at least two rows. The exporter's warning that other versions of
    its packages were tested is not printed.
    """
    import torch
    from transformers import AutoModelForSequenceClassification
    from transformers.exporters import OnnxConfig, OnnxExporter, OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer

    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    sample = {name: torch.from_numpy(array) for name, array in batch.items()}
    rows, length = torch.export.Dim("rows", max=4096), torch.export.Dim("length", max=512)
    dynamic = OnnxRuntimeDynamicConfig(per_channel=True, weight_type=QuantType.QInt8)
    config = OnnxConfig(
        dynamic_shapes={name: {0: rows, 1: length} for name in sample},
        ort_fusions="cpu",
        quantizer=OnnxRuntimeQuantizer(dynamic),
    )
    with silent():
        OnnxExporter().export(model, sample, config=config).save_pretrained(folder)
    return folder / "model.onnx"


def plain(model: Path) -> onnx.ModelProto:
    """Return the graph without its recorded shapes, which onnx's shape inference refuses after types change."""
    found = onnx.load(model)
    del found.graph.value_info[:]
    return found


@contextmanager
def silent() -> Iterator[None]:
    """Suppress progress output, and the advice to pre-process: that leaves our optimised graph the same."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Batches of rows of one length, because padding in the ranges costs 3 points of accuracy on the demo."""

    def __init__(self, tokens: Tokens) -> None:
        parts = equal_length_batches(tokens.lengths, max_slots=MAX_SLOTS)
        self.batches = [tokens.batch(part) for part in parts]
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Restrict `get_next` to these batches."""
        self.left: Iterator[Batch] = iter(self.batches[start_index:end_index])

    def get_next(self) -> Any:
        """Return the next batch, or None."""
        return next(self.left, None)
