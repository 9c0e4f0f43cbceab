"""Typed graphs within the range of float16: what does not fit stays in float32, and the rest is checked in halves."""

from pathlib import Path

import onnx_ir as ir

from toolchain import graph
from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Text
from toolchain.errors import GateError
from toolchain.graph.fp16 import to_half
from toolchain.records.bundle import Float16Record
from toolchain.runtimes.half_range import coarsest_in_halves, fault_in_halves, measure_range
from toolchain.runtimes.parity import Parity


def to_half_within_range(resolved: ResolvedRecipe, model: ir.Model, texts: list[Text]) -> Float16Record:
    """Convert a float32 graph to float16 in place, except for what does not fit float16 on these texts.

    Raises:
        InputError: ONNX Runtime cannot run the graph on them.
    """
    reached = measure_range(model, resolved.encode(texts))
    beyond = reached.beyond()
    record: Float16Record = {
        "beyond_float16": beyond,
        "float16_nodes": to_half(model, [one["tensor"] for one in beyond]),
    }
    if sums := reached.large_sums():
        record["large_sums"] = sums
    return record


def check_halves(model: ir.Model, tokens: Tokens, found: Parity, *, where: str, rtol: float) -> Parity:
    """Return `found`, the parity of a typed graph in halves, if it is near and every float16 tensor is finite.

    Near means within `rtol` of the largest logit, or of 1 if that is larger.

    Raises:
        GateError: it names the node that computes what float16 does not hold, or the tensor that it holds worst.
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    if fault := fault_in_halves(model, tokens):
        raise GateError(f"{where}: {fault}. Build with --precision fp32.")
    if not found.finite:
        raise GateError(
            f"{where}: logits of a padded batch are NaN or infinite in float16. Build with --precision fp32."
        )
    atol = rtol * max(1.0, found.largest_logit)
    if found.max_abs_logit_difference > atol:
        raise GateError(
            f"{where}: logits in float16 differ from PyTorch by {found.max_abs_logit_difference:.2g}, more than "
            f"{atol:.2g}; {coarsest_in_halves(model, tokens)}. Build with --precision fp32."
        )
    return found


def check_quantized(resolved: ResolvedRecipe, file: Path, found: Parity, texts: list[Text], *, typed: bool) -> Parity:
    """Return `found`, the parity of a quantized graph, if its values are finite; the gate judges how near it is.

    Raises:
        GateError: they are not finite.
    """
    where = f"{resolved.source.name}: {file.name}"
    if typed:
        return check_halves(graph.load(file), resolved.encode(texts), found, where=where, rtol=float("inf"))
    if not found.finite:
        raise GateError(f"{where} computes NaN or infinity. Calibrate with more rows.")
    return found


def range_texts(resolved: ResolvedRecipe, parity_texts: list[Text]) -> list[Text]:
    """Return the texts that decide what fits: those of parity, and in INT8 the calibration rows that are at hand."""
    recipe = resolved.recipe
    calibrated = "calibrate" in resolved.steps and (not recipe.calibration or recipe.gives_cache)
    return [*parity_texts, *(resolved.calibration_rows.texts if calibrated else ())]
