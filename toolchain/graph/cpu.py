"""Passes that make a graph fast in ONNX Runtime on a CPU, by choosing the fast kernel for each operator.

docs/decisions/012 has the measurements. Every pass is exact up to rounding; nothing is approximated.
"""

import onnx_ir as ir

from toolchain.graph import nodes, tidy
from toolchain.graph.first_token import first_token
from toolchain.graph.integer import integer_products


def for_cpu(model: ir.Model) -> dict[str, int]:
    """Run the passes for a CPU in place; return the number of nodes that each pass changed, by its name."""
    counts = {
        "integer_products": integer_products(model),  # none in a float graph
        "first_token": first_token(model),
        "separate_norms": separate_norms(model),
    }
    tidy(model)
    return counts


def separate_norms(model: ir.Model) -> int:
    """Replace the Add before each LayerNorm by Sum; return their number.

    ONNX Runtime fuses Add and LayerNormalization into SkipLayerNormalization, which takes five times as long as both
    together: its kernel is scalar, and that of LayerNormalization is vectorised. Sum is the same addition and is not
    fused.
    """
    count = 0
    for norm in nodes(model, "LayerNormalization"):
        addition = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if addition is not None and addition.op_type == "Add":
            addition.op_type = "Sum"
            count += 1
    return count
