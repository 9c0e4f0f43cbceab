"""Export of a checkpoint to ONNX. docs/decisions/001-exporter.md says why PyTorch's own exporter is used."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.checkpoint.facts import accepted, outputs
from toolchain.checkpoint.model import Source, load_model
from toolchain.checkpoint.tokenize import TextEncoder
from toolchain.data.probes import PROBES
from toolchain.data.rows import Text
from toolchain.errors import InputError
from toolchain.graph.clean import MASK_VALUE, clean
from toolchain.records.bundle import ExportedGraph, TensorInfo

if TYPE_CHECKING:
    import torch

OPSET = 18

# Number of sentences on which a model is run with a 2-D and with a 4-D attention mask, and the largest difference
# allowed between the two results, as a fraction of the largest logit (or of 1 if that is larger).
COMPARED = 3
TOLERANCE = 1e-4


def export(source: Source, target: Path) -> ExportedGraph:
    """Export a checkpoint to a float32 ONNX graph, write it to `target`, and return its record.

    Its inputs are int32 [batch, sequence], named as in `Source.inputs`. Its output is `logits`, float32
    [batch, classes]. Batch and sequence are dynamic.

    Raises:
        InputError: the checkpoint cannot be loaded, or it has an operation that cannot be exported.
    """
    model = _export_graph(source)
    changed = clean(model)
    return write_export(model, target, changed)


def write_export(model: ir.Model, target: Path, passes: dict[str, int]) -> ExportedGraph:
    """Write an exported graph to `target`, and return its record; `passes` are the changes made by each graph pass."""
    model.producer_name, model.producer_version = "encoder-toolchain", ""
    graph.save(model, target)
    return {
        "opset": OPSET,
        "inputs": [_describe(value) for value in model.graph.inputs],
        "outputs": [_describe(value) for value in model.graph.outputs],
        "nodes": len(model.graph),
        "passes": passes,
    }


def _describe(value: ir.Value) -> TensorInfo:
    shape: list[int | str] = [size if isinstance(size, int) else str(size) for size in value.shape or ()]
    return {"name": str(value.name), "dtype": str(value.dtype).lower(), "shape": shape}


def _export_graph(source: Source) -> ir.Model:
    import torch

    names = list(source.inputs)
    example = torch.ones((2, 7), dtype=torch.int32)
    with exporter_silenced():
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
        except Exception as error:  # an error of the exporter, or any error of the model
            raise InputError(
                f"{source.folder}: {source.type} cannot be exported to ONNX with a dynamic batch size and length "
                f"({_innermost(error)}; run again with -v for the traceback). Run it in PyTorch with "
                "`toolchain eval --backend torch`, or choose an encoder such as DistilBERT, BERT or RoBERTa."
            ) from error
    assert program is not None
    model: ir.Model = program.model
    for value in model.graph.inputs:
        value.shape = ir.Shape(["batch", "sequence"])
    return model


def _innermost(error: BaseException) -> str:
    """Return the class name of the first error in a chain of causes, which the exporter wraps in errors of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


def _logits_only(source: Source) -> "torch.nn.Module":
    """Wrap the model in a module that takes its inputs by position and returns the logits only.

    If the model accepts a 4-D attention mask, the module computes an additive one, [batch, 1, 1, sequence], which is
    finite in float16. transformers would compute one of [batch, 1, sequence, sequence] with some twenty operations.
    """
    import torch

    names, model = source.inputs, load_model(source, attention="eager")
    additive = _takes_additive_mask(source, model)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            named = dict(zip(names, inputs, strict=True))
            mask = named["attention_mask"]
            if additive:
                named["attention_mask"] = _additive(mask)
            logits: torch.Tensor = outputs(self.model, named, mask=mask)
            return logits

    # A new module is in training mode, and the exporter would put the model inside it into training mode too.
    return Logits().eval()


def _additive(mask: "torch.Tensor") -> "torch.Tensor":
    """Convert an attention mask [batch, sequence] to the values to add to attention scores, [batch, 1, 1, sequence]."""
    import torch

    return (1.0 - mask[:, None, None, :].to(torch.float32)) * MASK_VALUE


def _takes_additive_mask(source: Source, model: "torch.nn.Module") -> bool:
    """Return whether the model returns the same logits with an additive 4-D mask as with a 2-D mask, on padded rows.

    A decoder does not, because the 4-D mask replaces its causal mask. Other models accept [batch, sequence] only.
    """
    import torch

    facts = source.facts
    if facts.equal_length or "attention_mask" not in accepted(model, source.inputs):
        return False
    texts: list[Text] = [(text,) for text in PROBES[:COMPARED]]
    length = min(32, facts.longest or 32)
    tokens = TextEncoder(source.tokenizer, max_length=length, inputs=source.inputs, pad_id=facts.pad_id)(texts)
    batch = {name: torch.from_numpy(array) for name, array in tokens.batch(np.arange(len(texts))).items()}
    with torch.inference_mode():
        mask = batch["attention_mask"]
        expected: torch.Tensor = outputs(model, batch)
        try:
            found = outputs(model, batch | {"attention_mask": _additive(mask)}, mask=mask)
        except Exception:  # the class depends on the model
            return False
    atol = TOLERANCE * max(1.0, float(expected.abs().max()))
    return found.shape == expected.shape and bool(((found - expected).abs() <= atol).all())


@contextlib.contextmanager
def exporter_silenced() -> Iterator[None]:
    """Suppress all logs, warnings and output to the terminal while PyTorch's exporter runs."""
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
