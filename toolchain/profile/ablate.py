"""Change a graph so that a part of the encoder is removed or runs several times.

The difference in time or energy from the original graph is the cost of the part. The changed graph keeps the precision
of the original. Its logits have the same shape, but their values have no meaning.
"""

import itertools
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from toolchain.errors import InputError
from toolchain.graph import add_initializer, constant
from toolchain.graph.match import copy_nodes
from toolchain.profile.groups import NORMS, name_of, place_nodes

REMOVABLE = ("attention", "feed_forward")
REPEATABLE = ("embedding", "head")

ADDITIONS = {"Add", "Sum"}

# Operators that may be between a LayerNorm and the sum to which its output is added. A Mul by a constant may be there,
# too: smoothing inserts it (graph/smooth.py).
CONVERSIONS = {"Cast", "QuantizeLinear", "DequantizeLinear", "Identity"}


def without(model: ir.Model, group: str) -> int:
    """Remove attention or the feed-forward part from all layers, in place; return the number of removed parts.

    A part consists of the nodes between two consecutive LayerNorms and of the second LayerNorm. It is replaced by its
    residual input, which is the output of the first LayerNorm.

    Raises:
        InputError: a LayerNorm does not normalise the sum of a part's input and output.
    """
    places = place_nodes(model)
    norms = [node for node in model.graph if node.op_type in NORMS]
    count = 0
    for before, norm in itertools.pairwise(norms):
        if places[name_of(norm)].group == group:
            residual = _residual(norm, before.outputs[0])
            if residual is None:
                raise InputError(
                    f"{name_of(norm)}: this LayerNorm does not normalise a sum with the residual input of {group}, "
                    "so its cost cannot be measured by removing it."
                )
            norm.outputs[0].replace_all_uses_with(residual)
            count += 1
    common.RemoveUnusedNodesPass()(model)
    return count


def _residual(norm: ir.Node, kept: ir.Value) -> ir.Value | None:
    """Return the residual input of a part whose input is `kept`, if a LayerNorm normalises a sum with it; else None.

    It is `kept` itself, or the first token of `kept`.
    """
    total = _before_conversions(norm.inputs[0])
    add = total.producer() if total is not None else None
    for value in map(_before_conversions, add.inputs) if add is not None and add.op_type in ADDITIONS else ():
        if value is kept:
            return value
        choice = value.producer() if value is not None else None  # may select the first token, see graph/first_token.py
        if choice is not None and choice.op_type == "Gather" and _before_conversions(choice.inputs[0]) is kept:
            return value
    return None


def _before_conversions(value: ir.Value | None) -> ir.Value | None:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in CONVERSIONS and not (node.op_type == "Mul" and constant(node.inputs[1]) is not None):
            break
        value = node.inputs[0]
    return value


def repeated(model: ir.Model, group: str, times: int) -> int:
    """Make the embedding or the head run `times` more times, in place; return the number of added nodes.

    Each copy of the embedding gets the rows of the batch in another order, and each copy of the head an input scaled by
    another factor. Otherwise a runtime would merge copies that compute the same values. The results become outputs of
    the graph, so that no runtime removes them as unused.

    Raises:
        InputError: the graph has no nodes that can be identified as this part.
    """
    places = place_nodes(model)
    nodes = [node for node in model.graph if places[name_of(node)].group == group]
    start = _ids(model) if group == "embedding" else _first_token(nodes)
    if start is None or not nodes:
        raise InputError(f"the graph has no {group} that can be identified. Use a graph that `toolchain build` made.")
    nodes = _downstream(nodes, start)
    before = len(model.graph)
    for number in range(1, times + 1):
        rotated = _rotated(model, start, number) if group == "embedding" else _scaled(model, start, number)
        _copy(model, nodes, {start: rotated}, f".again{number}")
    return len(model.graph) - before


def _ids(model: ir.Model) -> ir.Value | None:
    return next((value for value in model.graph.inputs if value.name == "input_ids"), None)


def _first_token(head: list[ir.Node]) -> ir.Value | None:
    """Return the first tensor of the head with one vector per row, [batch, width]; None if there is none."""
    made = (value for node in head for value in node.outputs)
    return next((value for value in made if value.shape is not None and len(value.shape) == 2), None)


def _downstream(nodes: list[ir.Node], start: ir.Value) -> list[ir.Node]:
    made = {start}
    found = []
    for node in nodes:
        if any(value in made for value in node.inputs):
            found.append(node)
            made.update(node.outputs)
    return found


def _copy(model: ir.Model, nodes: list[ir.Node], known: dict[ir.Value, ir.Value], suffix: str) -> None:
    """Append copies of `nodes` to the graph.

    The copies read `known[value]` instead of `value`. Their outputs that no node reads become outputs of the graph.
    """
    inside = {value for node in nodes for value in node.outputs}
    read = (value for node in nodes for value in node.inputs if value is not None)
    known |= {value: value for value in read if value not in inside and value not in known}
    ends = [known_end for known_end in inside if not any(use.node in nodes for use in known_end.uses())]
    for made in copy_nodes(nodes, known):
        made.name = f"{made.name}{suffix}"
        for value in made.outputs:
            value.name = f"{value.name}{suffix}"
        model.graph.append(made)
    model.graph.outputs.extend(known[value] for value in ends)


def _rotated(model: ir.Model, ids: ir.Value, number: int) -> ir.Value:
    """Return the token ids with the first `number` rows of the batch moved to its end."""
    ends = {
        name: add_initializer(model, f"again.{name}", np.array([at], np.int64))
        for name, at in {"first": 0, str(number): number, "last": np.iinfo(np.int64).max}.items()
    }
    parts = [
        _add(model, "Slice", [ids, ends[start], ends[end], ends["first"]], f"{ids.name}.{name}{number}", ids)
        for name, start, end in (("behind", str(number), "last"), ("before", "first", str(number)))
    ]
    for part in parts:
        part.shape = ir.Shape([None, *(ids.shape or [None])[1:]])  # a slice has fewer rows than the batch
    return _add(model, "Concat", parts, f"{ids.name}.rotated{number}", ids, {"axis": 0})


def _scaled(model: ir.Model, value: ir.Value, number: int) -> ir.Value:
    dtype = np.float32 if value.dtype is None else value.dtype.numpy()
    factor = add_initializer(model, f"again.scale{number}", np.array(1 + number / 1024, dtype))
    return _add(model, "Mul", [value, factor], f"{value.name}.scaled{number}", value)


def _add(
    model: ir.Model,
    op_type: str,
    inputs: Iterable[ir.Value],
    name: str,
    like: ir.Value,
    attributes: dict[str, int] | None = None,
) -> ir.Value:
    """Append a node to the graph; return its only output, which gets `name` and the type and shape of `like`."""
    node = ir.node(op_type, list(inputs), attributes, name=name)
    made = node.outputs[0]
    made.name, made.type, made.shape = name, like.type, like.shape
    model.graph.append(node)
    return made
