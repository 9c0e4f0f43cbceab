"""Conversion of float32 graphs to typed graphs, in which most nodes compute in float16, and the check of such graphs.

Tensors with values that float16 cannot represent stay in float32. Such a graph is checked on a CPU "in halves": the
results of its float16 nodes are rounded to float16, as on a GPU (graph/halves.py).
"""

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
    """Convert a float32 graph to float16 in place, except tensors whose values on `texts` exceed float16's range.

    Return the record of these tensors, which stay in float32, and of GEMMs whose integer sums exceed that range.

    Raises:
        InputError: ONNX Runtime cannot run the graph on `texts`.
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
    """Check a typed graph whose results are rounded to float16, as on a GPU; return `found` if it passes.

    Every float16 tensor must be finite on the rows `tokens`. In `found`, the comparison with the checkpoint, no logit
    may differ by more than `rtol` times the largest logit, or `rtol` if that logit is below 1.

    Raises:
        GateError: the graph does not pass. The message names the node whose result float16 cannot represent, or the
            tensor that rounding changes most.
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    if fault := fault_in_halves(model, tokens):
        raise GateError(f"{where}: {fault}. Build with --precision fp32.")
    if not found.finite:
        raise GateError(
            f"{where}: in float16, logits of a padded batch are NaN or infinite. Build with --precision fp32."
        )
    atol = rtol * max(1.0, found.largest_logit)
    if found.max_abs_logit_difference > atol:
        raise GateError(
            f"{where}: logits in float16 differ from PyTorch's by up to {found.max_abs_logit_difference:.2g}, more "
            f"than the allowed {atol:.2g}; {coarsest_in_halves(model, tokens)}. Build with --precision fp32."
        )
    return found


def check_quantized(resolved: ResolvedRecipe, file: Path, found: Parity, texts: list[Text], *, typed: bool) -> Parity:
    """Return `found`, the comparison of a quantized graph with the checkpoint, if all values of the graph are finite.

    How much the logits differ is not checked here: the gate on the task's metric (--max-drop) decides that.

    Raises:
        GateError: a value is NaN or infinite.
        InputError: ONNX Runtime cannot run the graph with its float16 values rounded.
    """
    where = f"{resolved.source.name}: {file.name}"
    if typed:
        return check_halves(graph.load(file), resolved.encode(texts), found, where=where, rtol=float("inf"))
    if not found.finite:
        raise GateError(f"{where}: the graph computes NaN or infinity. Calibrate with more rows.")
    return found


def range_texts(resolved: ResolvedRecipe, parity_texts: list[Text]) -> list[Text]:
    """Return the texts on which the range of each tensor is measured, to find the tensors that exceed float16.

    They are the texts for the comparison with the checkpoint, and the calibration rows if the build reads any.
    """
    recipe = resolved.recipe
    calibrated = "calibrate" in resolved.steps and (not recipe.calibration or recipe.gives_cache)
    return [*parity_texts, *(resolved.calibration_rows.texts if calibrated else ())]
