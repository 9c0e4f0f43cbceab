"""A graph as ONNX Runtime is fastest with it on a CPU: the kernel that is fast chosen for each operator.

Which ones those are was measured (docs/decisions/012); what is exact is done, and nothing is approximated.
"""

import onnx_ir as ir

from toolchain.graph import nodes, tidy
from toolchain.graph.first_token import first_token
from toolchain.graph.integer import integer_products


def for_cpu(model: ir.Model) -> dict[str, int]:
    """Change a graph in place; return how many nodes each pass changed."""
    counts = {
        "integer_products": integer_products(model),  # none in a float graph
        "first_token": first_token(model),
        "separate_norms": separate_norms(model),
    }
    tidy(model)
    return counts


def separate_norms(model: ir.Model) -> int:
    """Write the addition before each LayerNorm as Sum, and return how many there are.

    ONNX Runtime fuses Add and LayerNormalization into SkipLayerNormalization, which takes five times as long as the
    two: it works value by value where LayerNormalization has vectors. Sum is the same addition, and is left alone.
    """
    count = 0
    for norm in nodes(model, "LayerNormalization"):
        addition = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if addition is not None and addition.op_type == "Add":
            addition.op_type = "Sum"
            count += 1
    return count
