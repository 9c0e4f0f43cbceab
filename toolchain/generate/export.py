"""Exports a causal language model to ONNX with transformers' own exporter (docs/decisions/023-language-models.md).

One graph runs both the prompt and each later step: its cache of keys and values may be empty, and it takes any number
of new tokens. An input says of which positions the logits are wanted, so that the output head does not compute those of
the whole prompt.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from toolchain.checkpoint.export import OPSET, exporter_silenced, write_export
from toolchain.errors import InputError, MachineError, innermost
from toolchain.generate.decode_ort import PAST, PRESENT
from toolchain.graph.keys import fold_keys
from toolchain.records.bundle import ExportedGraph
from toolchain.runtimes.environment import version_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

log = logging.getLogger(__name__)

# The earliest release of transformers whose exporter was tested with this project.
FLOOR = (5, 23)

# Sizes of the example inputs: rows, cached positions and new positions. All differ, so that the exporter does not take
# two of them for the same dimension.
ROWS, BEFORE, NEW = 2, 5, 3

# Types of RoPE whose frequencies change with the length of the text. Cached keys would keep the frequencies of the
# shorter text.
LENGTH_DEPENDENT = {"longrope", "dynamic"}

# Name of a tensor in transformers' dynamic cache -> its name in the graph.
PARTS = {"keys": "key", "values": "value"}


def require_exporter() -> None:
    """Refuse a release of transformers that lacks the exporter.

    Raises:
        MachineError: it is refused. The message names the release.
    """
    found = version_of("transformers")
    if found is None or tuple(int(part) for part in found.split(".")[:2] if part.isdecimal()) < FLOOR:
        raise MachineError(
            f"--task lm: the export needs transformers {'.'.join(map(str, FLOOR))} or later, but the version here "
            f"is {found or 'none'}. Update it: pip install 'transformers>={'.'.join(map(str, FLOOR))}'."
        )


def export(model: "PreTrainedModel", target: Path, *, where: str) -> ExportedGraph:
    """Write the ONNX graph of a causal language model, in the dtype of its weights, to `target`.

    The int64 inputs are input_ids and position_ids [batch, sequence], attention_mask [batch, past + sequence] and
    logits_to_keep [kept]. The cache is past_key_values.N.key|value [batch, heads, past, size]. Outputs are logits
    [batch, kept, vocabulary], and present.N.key|value, the cache extended by the new positions.

    Raises:
        InputError: the model keeps something other than keys and values between steps, the frequencies of its RoPE
            change with the length of the text, or it has an operation that cannot be exported.
        MachineError: see `require_exporter`.
    """
    require_exporter()
    _refuse_rope(model.config, where)
    inputs = _example(model, where)
    with exporter_silenced():
        from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

        config = OnnxConfig(dynamic=True, dynamic_shapes=_shapes(inputs), opset_version=OPSET)
        try:
            made: ir.Model = OnnxExporter().export(model, inputs, config).program
        except Exception as error:  # the exporter's own errors, and any that the model raises during export
            raise InputError(
                f"{where}: {model.config.model_type} cannot be exported with a cache "
                f"({type(innermost(error)).__name__}; run again with -v for the traceback). Run the model in "
                "PyTorch instead: toolchain generate --backend torch."
            ) from error
    _rename(made)
    folded = fold_keys(made)
    _warn_of_keys(folded, len(inputs["past_key_values"].layers), where)
    return write_export(made, target, {"fold_keys": folded})


def _warn_of_keys(folded: int, layers: int, where: str) -> None:
    """Log a warning if `fold_keys` could not speed up how some attention layers read their cached keys."""
    if folded < layers:
        log.warning(
            "%s: %d of %d attention layers read cached keys in place; the others transpose all keys in each step, "
            "which takes longer",
            where,
            folded,
            layers,
        )


def _refuse_rope(config: "PretrainedConfig", where: str) -> None:
    """Refuse a model whose RoPE has frequencies that change with the length of the text.

    Raises:
        InputError: it is refused. The message names the type of RoPE.
    """
    given = getattr(config.get_text_config(), "rope_parameters", None) or {}
    each = [
        given,
        *(one for one in given.values() if isinstance(one, dict)),
    ]  # some models have one for each type of layer
    for kind in sorted(LENGTH_DEPENDENT & {str(one.get("rope_type")) for one in each}):
        raise InputError(
            f"{where}: its RoPE is of type {kind}, whose frequencies change with the length of the text, but the keys "
            "in a graph's cache keep the old ones. Run it in PyTorch: toolchain generate --backend torch."
        )


def _example(model: "PreTrainedModel", where: str) -> dict[str, Any]:  # the keyword arguments of the model
    """Return example arguments for the model's forward: new tokens, and a cache that has some positions already.

    Raises:
        InputError: the model keeps something other than the keys and values of all positions between steps.
    """
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    with torch.inference_mode(False), torch.no_grad():
        model(input_ids=torch.ones((ROWS, BEFORE), dtype=torch.int64), past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        kept = [getattr(layer, name, None) for name in PARTS]
        if not all(one is not None and one.ndim == 4 and one.shape[2] == BEFORE for one in kept):
            raise InputError(
                f"{where}: {model.config.model_type} keeps something other than the keys and values of all "
                "positions between steps. Run it in PyTorch: toolchain generate --backend torch."
            )
    places = torch.arange(BEFORE, BEFORE + NEW).expand(ROWS, NEW).clone()
    return {
        "input_ids": torch.ones((ROWS, NEW), dtype=torch.int64),
        "attention_mask": torch.ones((ROWS, BEFORE + NEW), dtype=torch.int64),
        "position_ids": places,
        "past_key_values": cache,
        "logits_to_keep": torch.tensor([0, NEW - 1]),
    }


def _shapes(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the axes of each input whose sizes vary.

    Without them the exporter would search for relations among all sizes, which is slow.
    """
    from torch.export import Dim

    rows, new, before = Dim("batch"), Dim("sequence"), Dim("past")
    tensors = len(PARTS) * len(inputs["past_key_values"].layers)
    return {
        "input_ids": {0: rows, 1: new},
        "attention_mask": {0: rows, 1: Dim.AUTO},  # its length is before + new, which the exporter finds out
        "position_ids": {0: rows, 1: new},
        "past_key_values": [{0: rows, 2: before} for _ in range(tensors)],
        "logits_to_keep": {0: Dim("kept")},
    }


def _rename(model: ir.Model) -> None:
    """Rename inputs and outputs, in place, as other exporters name them, and their axes as `_shapes` names them."""
    named = {str(value.name): value for value in model.graph.inputs}
    before = next(value for name, value in named.items() if name.endswith(".keys"))
    places = (("input_ids", 0, "batch"), ("input_ids", 1, "sequence"), ("logits_to_keep", 0, "kept"))
    sizes = {str(_size(named[name], axis)): meaning for name, axis, meaning in places} | {str(_size(before, 2)): "past"}
    for values, prefix in ((model.graph.inputs, PAST), (model.graph.outputs, PRESENT)):
        for value in values:
            *_, number, part = [None, *str(value.name).split(".")]
            if part in PARTS:
                value.name = f"{prefix}{number}.{PARTS[part]}"
            terms = [[sizes.get(term, term) for term in str(size).split(" + ")] for size in value.shape or ()]
            value.shape = ir.Shape([int(parts[0]) if parts[0].isdecimal() else " + ".join(parts) for parts in terms])
    for value in named.values():
        if value.name == "attention_mask":
            value.shape = ir.Shape(["batch", "past + sequence"])


def _size(value: ir.Value, axis: int) -> int | ir.SymbolicDim:
    assert value.shape is not None
    return value.shape[axis]
