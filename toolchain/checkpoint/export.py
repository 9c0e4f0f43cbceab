"""Export of a checkpoint to ONNX. docs/decisions/001-exporter.md says why with this exporter."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from toolchain import graph
from toolchain.checkpoint.model import OWN_MASKS, Source, load_model
from toolchain.errors import InputError, first_line
from toolchain.graph.clean import MASK_VALUE, clean
from toolchain.records.bundle import ExportedGraph, TensorInfo

if TYPE_CHECKING:
    import torch

OPSET = 18


def export(source: Source, target: Path) -> ExportedGraph:
    """Write the float32 ONNX graph of a classifier to `target`.

    Its inputs are int32 [batch, sequence], named as in `Source.inputs`; its output is `logits`, float32
    [batch, classes]. Batch and sequence are dynamic.

    Raises:
        InputError: the checkpoint cannot be loaded, or it has an operation that cannot be exported.
    """
    model = _export_graph(source)
    changed = clean(model)
    model.producer_name, model.producer_version = "encoder-toolchain", ""
    graph.save(model, target)
    return {
        "opset": OPSET,
        "inputs": [_describe(value) for value in model.graph.inputs],
        "outputs": [_describe(value) for value in model.graph.outputs],
        "nodes": len(model.graph),
        "passes": changed,
    }


def _describe(value: ir.Value) -> TensorInfo:
    shape: list[int | str] = [size if isinstance(size, int) else str(size) for size in value.shape or ()]
    return {"name": str(value.name), "dtype": str(value.dtype).lower(), "shape": shape}


def _export_graph(source: Source) -> ir.Model:
    import torch

    names = list(source.inputs)
    example = torch.ones((2, 7), dtype=torch.int32)
    with _exporter_silenced():
        try:
            program = torch.onnx.export(
                _logits_only(source),
                tuple(example.clone() for _ in names),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes={"inputs": tuple({0: "batch", 1: "sequence"} for _ in names)},
                external_data=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(
                f"{source.folder}: {source.type} cannot be exported: {first_line(error)}. "
                "Choose an encoder such as DistilBERT, BERT or RoBERTa."
            ) from error
    assert program is not None
    model: ir.Model = program.model
    for value in model.graph.inputs:
        value.shape = ir.Shape(["batch", "sequence"])
    return model


def _logits_only(source: Source) -> "torch.nn.Module":
    """Return the model in a module that takes tensors by position and returns the logits only.

    A model that accepts a prepared 4-D mask gets an additive one, which is finite in float16 and broadcasts over
    queries. transformers' own mask is [batch, 1, sequence, sequence], from some twenty index operations.
    """
    import torch

    names, additive = source.inputs, source.type not in OWN_MASKS

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = load_model(source, attention="eager")

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            named = dict(zip(names, inputs, strict=True))
            if additive:
                kept = named["attention_mask"][:, None, None, :].to(torch.float32)
                named["attention_mask"] = (1.0 - kept) * MASK_VALUE
            logits: torch.Tensor = self.model(**named).logits
            return logits

    # A new module is in training mode, and the exporter would set the model's mode to it.
    return Logits().eval()


@contextlib.contextmanager
def _exporter_silenced() -> Iterator[None]:
    """Keep the exporter's progress and advice off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
