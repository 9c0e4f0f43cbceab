"""A pass that computes the last layer for the first token alone, if the head reads no other token.

The query, attention's output layer and the feed-forward layers of the last layer are then computed once per row
instead of once per token; keys and values are still computed for all tokens. The result is exact.
"""

import numpy as np
import onnx_ir as ir

from toolchain.graph import add_initializer, constant, nodes
from toolchain.graph.integer import INTEGER_MATMUL
from toolchain.graph.match import axis

# Elementwise operators: each element of the result depends only on the elements of the inputs at the same index.
ELEMENTWISE = {"Add", "Sum", "Sub", "Mul", "Div", "Erf", "Relu", "Tanh", "Gelu", "FastGelu"}

# Value that is needed for the first token only -> its dimension of tokens.
TokenAxes = dict[ir.Value, int]

# A node and the index of one of its inputs.
Read = tuple[ir.Node, int]

# Suffix of the name of a tensor that holds the first token of another tensor.
FIRST = ".first"


def first_token(model: ir.Model) -> int:
    """Move the Gather of the first token towards the inputs as far as the graph allows, in place.

    Return the number of nodes that now compute the first token only.
    """
    count = 0
    for choice in nodes(model, "Gather"):
        hidden, index = choice.inputs[0], constant(choice.inputs[1])
        whole = hidden is None or hidden.shape is None or len(hidden.shape) != 3
        if whole or axis(choice, 0) != 1 or index is None or index.size != 1 or index.item() != 0:
            continue
        assert hidden is not None
        count += _narrow(model, choice, hidden)
    return count


def _narrow(model: ir.Model, choice: ir.Node, hidden: ir.Value) -> int:
    """Compute only the first token in the nodes before the Gather `choice`; return the number of these nodes.

    A node whose output is also needed for other tokens stays as it is, and so do the nodes before it.
    """
    axes: TokenAxes = {hidden: 1}
    reads: set[Read] = {(choice, 0)}
    for node in reversed(list(model.graph)):
        made = node.outputs[0]
        # If other nodes also read a value, such as a query that is also the key, it is needed for all tokens.
        if made in axes and all((use.node, use.idx) in reads for use in made.uses()):
            needed = _needed(node, axes[made])
            if needed and all(axes.get(value, place) == place for value, place in needed.items()):
                axes |= needed
                reads |= {(node, index) for index, value in enumerate(node.inputs) if value in needed}
    narrowed = {node for node, _ in reads} - {choice}
    for value, place in axes.items():
        if value.producer() in narrowed:
            value.shape = _first_shape(value, place)
        else:
            _take_first(model, value, place, reads - {(choice, 0)})
    return len(narrowed)


def _needed(node: ir.Node, place: int) -> TokenAxes | None:
    """Return which inputs of a node can be cut to their first token if only the first token of its output is needed.

    `place` is the dimension of tokens in the output. The result maps each of these inputs to the input's dimension of
    tokens. Return None if the node may read other tokens too.
    """
    first, shape = node.inputs[0], node.outputs[0].shape
    if first is None or first.shape is None or shape is None:
        return None
    last = len(shape) - 1
    if node.op_type in ELEMENTWISE:
        return _broadcast(node, place, len(shape))
    if node.op_type in ("LayerNormalization", "Softmax"):
        return {first: place} if axis(node, -1) in (-1, last) and place != last else None
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        scale = constant(node.inputs[1])
        return {first: place} if scale is not None and scale.size == 1 else None
    if node.op_type in ("MatMul", INTEGER_MATMUL):
        # A row of the result depends on one row of the left operand and on the whole right operand.
        rows = place == last - 1 and len(first.shape) == len(shape)
        return {first: place} if rows and first is not node.inputs[1] else None
    if node.op_type == "Transpose":
        return {first: node.attributes["perm"].as_ints()[place]}
    if node.op_type == "Reshape":
        target = constant(node.inputs[1])
        return {first: place} if target is not None and not target[: place + 1].any() else None
    return None


def _broadcast(node: ir.Node, place: int, rank: int) -> TokenAxes | None:
    needed: TokenAxes = {}
    for value in node.inputs:
        if value is None or value.shape is None:
            return None
        own = place - (rank - len(value.shape))  # broadcasting aligns shapes at their ends
        if own >= 0 and value.shape[own] != 1:
            needed[value] = own
    return needed


def _first_shape(value: ir.Value, place: int) -> ir.Shape:
    assert value.shape is not None  # _needed narrows only nodes whose shapes are known
    return ir.Shape([1 if dimension == place else size for dimension, size in enumerate(value.shape)])


def _take_first(model: ir.Model, value: ir.Value, place: int, reads: set[Read]) -> None:
    """Make `reads` read only the first token of `value`, from a new tensor called `<name of value>.first`.

    `place` is the dimension of tokens in `value`; `reads` has pairs of a node and the index of its input.
    """
    source = value.producer()
    index = add_initializer(model, "first_token", np.zeros(1, np.int64))
    take = ir.node("Gather", [value, index], {"axis": place}, name=f"{value.name}{FIRST}")
    made = take.outputs[0]
    made.name, made.type, made.shape = f"{value.name}{FIRST}", value.type, _first_shape(value, place)
    if source is None:
        model.graph.insert_before(model.graph[0], take)
    else:
        model.graph.insert_after(source, take)
    for use in list(value.uses()):
        if (use.node, use.idx) in reads:
            use.node.replace_input_with(use.idx, made)
