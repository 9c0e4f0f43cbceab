"""INT8 graphs that ONNX Runtime's own quantization tools make from our export and from that of transformers."""

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
    """Quantize a graph dynamically, write it to `made`, and return that path.

    Weights are INT8 with a scale for each output channel; activations are quantized at run time.
    """
    with silent():
        quantize_dynamic(plain(model), made, per_channel=True, weight_type=QuantType.QInt8)
    return made


def static(model: Path, made: Path, tokens: Tokens, *, method: str) -> Path:
    """Quantize a graph statically, write it to `made`, and return that path.

    The result has Q/DQ nodes with INT8 weights and uint8 activations, the form that is fast on CPUs. The calibration
    ranges come from the rows in `tokens`, by `method`: `minmax` or `percentile`.
    """
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
    """Export a checkpoint with transformers' own exporter, and return the path of the graph in `folder`.

    The exporter fuses operators for CPUs and quantizes dynamically, with INT8 weights per channel. `batch` is an
    example of the inputs with at least two rows. The exporter's warning about untested package versions is suppressed.
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
    """Load a graph and return it without the shapes and types recorded for its inner tensors.

    Quantization changes these types, and onnx's shape inference then fails on the recorded ones.
    """
    found = onnx.load(model)
    del found.graph.value_info[:]
    return found


@contextmanager
def silent() -> Iterator[None]:
    """Suppress what is printed to stdout, and warnings in the log.

    One of the warnings advises pre-processing, which does not change our graph, because it is optimised already.
    """
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """The calibration data for ONNX Runtime's tools: batches of rows of equal length, so without padding.

    Padded positions would enter the calibration ranges, which costs 3 points of accuracy on the demo.
    """

    def __init__(self, tokens: Tokens) -> None:
        parts = equal_length_batches(tokens.lengths, max_slots=MAX_SLOTS)
        self.batches = [tokens.batch(part) for part in parts]
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Restrict `get_next` to the batches from `start_index` up to, but not including, `end_index`."""
        self.left: Iterator[Batch] = iter(self.batches[start_index:end_index])

    def get_next(self) -> Any:
        """Return the next batch, or None after the last one."""
        return next(self.left, None)
