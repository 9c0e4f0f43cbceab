"""The table of token embeddings in INT8: a quarter of its bytes, with a scale for each token.

The table is most of a small model: 47 of the 59 MB of a DistilBERT of six layers of width 384 in INT8. Looking rows up
takes no time that counts, so this makes files and memory smaller, and nothing faster.
"""

import numpy as np
import onnx_ir as ir

from toolchain.base.tensors import Array
from toolchain.graph import add_initializer, constant, nodes, tidy

IDS = "input_ids"

# The largest integer: the range is symmetric, as for weights of GEMMs.
LEVELS = 127


def quantize_embedding(model: ir.Model) -> int:
    """Store each float32 table that `input_ids` look up as int8 with a scale a row, in place; return their number.

    A table that other nodes read too keeps its type, because a second copy would make the file larger.
    """
    count = 0
    for lookup in nodes(model, "Gather"):
        table, ids = lookup.inputs[:2]
        values = constant(table)
        if table is None or values is None or values.dtype != np.float32 or values.ndim != 2:
            continue
        if not _are_ids(ids) or len(table.uses()) != 1 or lookup.attributes.get_int("axis", 0) != 0:
            continue
        scales = np.abs(values).max(axis=1, keepdims=True) / LEVELS
        scales[scales == 0] = 1  # a row of zeros, such as that of the padding token
        integers = np.rint(values / scales).astype(np.int8)
        _replace(model, lookup, integers, scales)
        count += 1
    tidy(model)
    return count


def _are_ids(value: ir.Value | None) -> bool:
    """Return whether a value is the input of token ids, perhaps in another integer type."""
    while value is not None and (node := value.producer()) is not None and node.op_type == "Cast":
        value = node.inputs[0]
    return value is not None and value.is_graph_input() and value.name == IDS


def _replace(model: ir.Model, lookup: ir.Node, integers: Array, scales: Array) -> None:
    """Compute the output of a lookup as the row of integers times the row's scale."""
    table, ids = lookup.inputs[:2]
    assert table is not None
    rows = ir.node("Gather", [add_initializer(model, f"{table.name}.int8", integers), ids], name=lookup.name)
    numbers = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{lookup.name}.float")
    scale = ir.node("Gather", [add_initializer(model, f"{table.name}.scale", scales), ids], name=f"{lookup.name}.scale")
    product = ir.node("Mul", [numbers.outputs[0], scale.outputs[0]], name=f"{lookup.name}.scaled")
    known, made = lookup.outputs[0], product.outputs[0]
    made.shape, made.type = known.shape, known.type
    model.graph.insert_before(lookup, [rows, numbers, scale, product])
    known.replace_all_uses_with(made, replace_graph_outputs=True)
    made.name, known.name = known.name, f"{known.name}.replaced"
