"""Typed graphs within the range of float16: what does not fit stays in float32."""

import onnx_ir as ir

from toolchain.bundle.resolved_recipe import ResolvedRecipe
from toolchain.data.rows import Text
from toolchain.graph.fp16 import to_half
from toolchain.records.bundle import Float16Record
from toolchain.runtimes.half_range import measure_range


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


def range_texts(resolved: ResolvedRecipe, parity_texts: list[Text]) -> list[Text]:
    """Return the texts that decide what fits: those of parity, and in INT8 the calibration rows that are at hand."""
    recipe = resolved.recipe
    calibrated = "calibrate" in resolved.steps and (not recipe.calibration or recipe.gives_cache)
    return [*parity_texts, *(resolved.calibration_rows.texts if calibrated else ())]
