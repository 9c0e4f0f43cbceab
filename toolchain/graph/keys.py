"""A pass for language models that computes attention scores without copying the keys.

The exporter writes (query * a) times (transposed key * a), where a Reshape comes before and after the transposition.
This copies all keys twice for each generated token. The pass multiplies the query by a * a instead, and puts a single
Transpose before the MatMul. ONNX Runtime fuses the two and reads the keys where they are.
"""

import numpy as np
import onnx_ir as ir

from toolchain.graph import add_initializer, constant, nodes, tidy

# Permutations that transpose the keys, so that each key becomes a column: for keys of shape [rows * heads, positions,
# size], and for keys of shape [rows, heads, positions, size].
TURNED, TURNED_BY_HEAD = (0, 2, 1), (0, 1, 3, 2)

# For each dimension after the first Reshape, the axis of the keys with its size; -1 is inferred as rows * heads.
JOINED = (-1, 2, 3)


def fold_keys(model: ir.Model) -> int:
    """Make attention scores read their keys without a copy, in place; return the number of attentions changed."""
    count = 0
    for node in list(nodes(model, "MatMul")):
        scale_of_query, scale_of_key = (_scale(_maker(value, "Mul")) for value in node.inputs)
        keys = _keys(_maker(node.inputs[1], "Mul"))
        if scale_of_query is None or scale_of_key is None or keys is None:
            continue
        query = _maker(node.inputs[0], "Mul")
        assert query is not None
        scale = add_initializer(model, f"{node.name}.scale", np.array(scale_of_query * scale_of_key, np.float32))
        scaled = ir.node("Mul", [query.inputs[0], scale], name=f"{node.name}.query")
        turned = ir.node("Transpose", [keys], {"perm": TURNED_BY_HEAD}, name=f"{node.name}.keys")
        for made, old in zip((scaled, turned), node.inputs, strict=True):
            assert old is not None
            made.outputs[0].type, made.outputs[0].shape = old.type, old.shape
        model.graph.insert_before(node, [scaled, turned])
        node.replace_input_with(0, scaled.outputs[0])
        node.replace_input_with(1, turned.outputs[0])
        count += 1
    tidy(model)
    return count


def _keys(scaling: ir.Node | None) -> ir.Value | None:
    """Return the keys, [rows, heads, positions, size], that reach a Mul through a Reshape, a Transpose and a Reshape.

    `scaling` is the Mul. Return None if other nodes come before it. The first Reshape must join the axes of rows and
    heads, the second one must separate them again, and both must keep the other axes.
    """
    outer = _maker(scaling.inputs[0], "Reshape") if scaling is not None else None
    turn = _maker(outer.inputs[0], "Transpose") if outer is not None else None
    inner = _maker(turn.inputs[0], "Reshape") if turn is not None else None
    if outer is None or inner is None or turn is None or tuple(turn.attributes.get_ints("perm", ())) != TURNED:
        return None
    keys = inner.inputs[0]
    same = _axes(inner.inputs[1], keys) == JOINED and _axes(outer.inputs[1], keys) == TURNED_BY_HEAD
    return keys if same else None


def _axes(target: ir.Value | None, keys: ir.Value | None) -> tuple[int, ...] | None:
    """Return, for each size in a Reshape's shape, the axis of `keys` that it is read from; -1 for an inferred size.

    `target` is the shape. Return None if a size comes from elsewhere.
    """
    joined = _maker(target, "Concat")
    if joined is None or keys is None or keys.shape is None or len(keys.shape) != len(TURNED_BY_HEAD):
        return None
    found: list[int] = []
    for part in joined.inputs:
        number = constant(part)
        axes = [-1] if number is not None and number.tolist() == [-1] else _sliced(part, keys)
        if axes is None:
            return None
        found += axes
    return tuple(found)


def _sliced(part: ir.Value | None, keys: ir.Value) -> list[int] | None:
    """Return the axes of `keys` that `part` selects if it is a Slice of the Shape of `keys`, else None."""
    cut = _maker(part, "Slice")
    sizes = _maker(cut.inputs[0], "Shape") if cut is not None else None
    if cut is None or sizes is None or sizes.inputs[0] is not keys or sizes.attributes.get_int("end", None) is not None:
        return None
    ends = [constant(end) for end in cut.inputs[1:]]
    numbers = [int(end.item()) for end in ends if end is not None]
    if sizes.attributes.get_int("start", 0) or len(numbers) != len(ends) or len(ends) != 2:
        return None
    return [*range(len(TURNED_BY_HEAD))][slice(*numbers)]


def _maker(value: ir.Value | None, kind: str) -> ir.Node | None:
    """Return the node that computes a value if its type is `kind`, else None."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == kind else None


def _scale(node: ir.Node | None) -> float | None:
    """Return the scalar constant that a Mul multiplies by, or None if its second input is not a scalar constant."""
    array = constant(node.inputs[1]) if node is not None else None
    return float(array) if array is not None and array.ndim == 0 else None
