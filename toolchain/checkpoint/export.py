"""Checkpoint to ONNX, checked against PyTorch. Why this exporter: docs/decisions/001-exporter.md."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from toolchain import graph
from toolchain.checkpoint.model import OWN_MASKS, Source, load_model
from toolchain.errors import InputError
from toolchain.graph.clean import MASK_VALUE, clean

if TYPE_CHECKING:
    import torch

OPSET = 18


def export(source: Source, target: Path) -> dict[str, Any]:
    """Write the float32 ONNX graph of a classifier to `target`.

    Inputs are int32 [batch, sequence], named as `Source.inputs`; the output is `logits`, float32
    [batch, classes]. Batch and sequence are dynamic.

    Returns:
        A JSON record: opset, inputs, outputs, and what each cleaning pass changed.

    Raises:
        InputError: the checkpoint cannot be loaded, or has an operation that cannot be exported.
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


def _describe(value: ir.Value) -> dict[str, Any]:
    shape = [dimension if isinstance(dimension, int) else str(dimension) for dimension in value.shape or ()]
    return {"name": value.name, "dtype": str(value.dtype).lower(), "shape": shape}


def _export_graph(source: Source) -> ir.Model:
    import torch

    names = list(source.inputs)
    example = torch.ones((2, 7), dtype=torch.int32)
    with _silence():
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
            first = str(error).strip().split("\n")[0]
            raise InputError(
                f"{source.folder}: {source.type} cannot be exported: {first}. "
                "Choose an encoder such as DistilBERT, BERT or RoBERTa."
            ) from error
    assert program is not None
    model: ir.Model = program.model
    for value in model.graph.inputs:
        value.shape = ir.Shape(["batch", "sequence"])
    return model


def _logits_only(source: Source) -> "torch.nn.Module":
    """Wrap the model so that it takes tensors by position and gives logits alone.

    Where the model accepts a prepared 4-D mask it gets an additive one, finite in float16 and
    broadcast over queries: transformers' own is [batch, 1, sequence, sequence] and made of some
    twenty index operations.
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

    # A fresh module is in training mode, and the exporter would put the model back into it.
    return Logits().eval()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's own progress and advice off the terminal."""
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
