"""Passes that rewrite a graph so that ONNX Runtime runs it with its fast kernels on a CPU.

docs/decisions/012 has the measurements. The passes change results by rounding only.
"""

import onnx_ir as ir

from toolchain.graph import nodes, tidy
from toolchain.graph.first_token import first_token
from toolchain.graph.integer import integer_products


def for_cpu(model: ir.Model) -> dict[str, int]:
    """Run the passes for a CPU in place; return pass name -> number of nodes that it changed."""
    counts = {
        "integer_products": integer_products(model),  # 0 for a float graph
        "first_token": first_token(model),
        "separate_norms": separate_norms(model),
    }
    tidy(model)
    return counts


def separate_norms(model: ir.Model) -> int:
    """Replace the Add before each LayerNorm by Sum, in place; return the number of nodes that were replaced.

    ONNX Runtime fuses Add and LayerNormalization into SkipLayerNormalization. That takes five times as long as the two
    nodes, because its kernel is scalar and the kernel of LayerNormalization is vectorised. Sum is the same addition and
    is not fused.
    """
    count = 0
    for norm in nodes(model, "LayerNormalization"):
        addition = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if addition is not None and addition.op_type == "Add":
            addition.op_type = "Sum"
            count += 1
    return count
