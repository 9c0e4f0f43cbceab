"""Fusions for ONNX Runtime on CUDA: attention, LayerNorm and GELU each become one operator of ONNX Runtime.

ONNX Runtime's optimiser does not recognise attention as transformers 5 exports it. The operators are documented in its
ContribOperators.md. In float16 they accumulate in float32, so they need none of the casts that graph/fp16.py puts
around the unfused operators. Two parts are not fused. The fused operator for embeddings would square their small
values in float16, which loses bits. Attention over packed rows has operators on CUDA only, so it cannot be checked on
other machines.
"""

from collections.abc import Callable
from typing import NoReturn

import numpy as np
import onnx_ir as ir

from toolchain.errors import InputError
from toolchain.graph import RIGHT_PADDED, add_initializer, constant, nodes, tidy
from toolchain.graph.clean import MASK_VALUE
from toolchain.graph.first_token import first_token
from toolchain.graph.match import Matcher, axis, broadcasts_over_queries

DOMAIN = "com.microsoft"

# Name of the tensor with the number of real tokens of each row, int32 [batch]. All fused kernels accept a mask in this
# form, which requires rows that are padded on the right.
LENGTHS = "attention_mask.lengths"


def for_cuda(model: ir.Model, *, where: str = "model.onnx") -> dict[str, int]:
    """Fuse a clean float32 graph in place; return fusion name -> number of fusions. Call it before fp16.to_half.

    Raises:
        InputError: the attention or a LayerNorm of some layer cannot be fused, so the graph would not be faster.
    """
    layers = sum(1 for _ in nodes(model, "Softmax"))
    counts = {"first_token": first_token(model)}
    counts |= {name: run(model) for name, run in FUSIONS.items()}
    for name, wanted in (("attention", layers), ("skip_norms", 2 * layers)):
        if not wanted or counts[name] != wanted:
            raise InputError(
                f"{where}: the fusion {name} for CUDA fits only {counts[name]} of {wanted} places in the graph. "
                "Run the unfused graph, model.fp16.onnx."
            )
    model.graph.opset_imports[DOMAIN] = 1
    tidy(model)
    model.metadata_props[RIGHT_PADDED] = "1"
    return counts


def fuse_attention(model: ir.Model) -> int:
    """Fuse each attention, from the biases of Q, K and V to the joined heads, into one node; return the node count.

    The query must be scaled already (clean.fold_attention_scale). A row without any token attends to its first
    position.
    """
    matcher, count = _AttentionMatcher(model, "attention"), 0
    for softmax in nodes(model, "Softmax"):
        try:
            joined, operands, heads = matcher.parts(softmax)
        except InputError:
            continue  # for_cuda raises an error if an attention was not fused
        lengths = _lengths(model)
        query, key, value = (product for product, _ in operands)
        biases = [constant(bias) for _, bias in operands]
        bias = add_initializer(model, f"{softmax.name}.bias", np.concatenate(biases))  # type: ignore[arg-type]
        known = {"num_heads": heads, "scale": 1.0}
        fused = ir.node("MultiHeadAttention", [query, key, value, bias, lengths], known, domain=DOMAIN)
        _replace(model, joined, fused, name=str(softmax.name).removesuffix(".softmax"))
        count += 1
    return count


def fuse_skip_norms(model: ir.Model) -> int:
    """Fuse each LayerNorm with the residual addition and the bias before it into one node; return the node count."""
    count = 0
    for norm in nodes(model, "LayerNormalization"):
        addition = _producer(norm.inputs[0], "Add")
        if addition is None or axis(norm, -1) not in (-1, 2) or len(addition.outputs[0].uses()) != 1:
            continue
        x, skip = addition.inputs
        if x is None or skip is None or x.shape is None or x.shape != skip.shape or _is_embedding(x, skip):
            continue
        product, bias = _biased(x)
        if bias is None:
            product, bias = _biased(skip)
            product, skip = (product, x) if bias is not None else (x, skip)
        known = {"epsilon": norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5}
        inputs = [product, skip, norm.inputs[1], norm.inputs[2] if len(norm.inputs) > 2 else None, bias]
        fused = ir.node("SkipLayerNormalization", inputs, known, domain=DOMAIN)
        _replace(model, norm, fused, name=str(norm.name))
        count += 1
    return count


def fuse_gelu(model: ir.Model) -> int:
    """Fuse each exact GELU with the bias of the linear layer before it into one node; return the node count."""
    count = 0
    for half in nodes(model, "Mul"):
        product = _producer(half.inputs[0], "Mul")
        plus_one = _producer(product.inputs[1], "Add") if product is not None and _is(half.inputs[1], 0.5) else None
        erf = _producer(plus_one.inputs[0], "Erf") if plus_one is not None and _is(plus_one.inputs[1], 1.0) else None
        divided = _producer(erf.inputs[0], "Div") if erf is not None else None
        if product is None or divided is None or not _is(divided.inputs[1], 2**0.5):
            continue
        x, bias = _biased(product.inputs[0], readers=2)
        if bias is None or divided.inputs[0] is not product.inputs[0]:
            continue
        _replace(model, half, ir.node("BiasGelu", [x, bias], domain=DOMAIN), name=f"{half.outputs[0].name}.gelu")
        count += 1
    return count


# Name -> fusion, in the order in which they run. `gelu` finds nothing if the model has another activation function.
FUSIONS: dict[str, Callable[[ir.Model], int]] = {
    "attention": fuse_attention,
    "skip_norms": fuse_skip_norms,
    "gelu": fuse_gelu,
}


class _AttentionMatcher(Matcher):
    """Finds the nodes of an attention, starting at its softmax."""

    def refuse(self, what: str) -> NoReturn:
        raise InputError(f"{self.where}: {what}. Run the graph without fusions.")

    def parts(self, softmax: ir.Node) -> tuple[ir.Node, list[tuple[ir.Value, ir.Value]], int]:
        """Return the node that joins the heads, (MatMul output, bias) for Q, K and V each, and the number of heads."""
        at = str(softmax.name)
        add = _producer(softmax.inputs[0], "Add")
        masks = (
            [part for part in add.inputs if part is not None and broadcasts_over_queries(part)]
            if add is not None
            else []
        )
        if add is None or len(masks) != 1 or not self.is_mask(masks[0]):
            self.refuse(f"{at}: no padding mask is added to the scores")
        scores = _producer(next(part for part in add.inputs if part is not masks[0]), "MatMul")
        joined = _only_reader(softmax, "MatMul")
        moved = _only_reader(joined, "Transpose")
        end = _only_reader(moved, "Reshape")
        if scores is None or joined is None or end is None or joined.inputs[0] is not softmax.outputs[0]:
            self.refuse(f"{at}: the softmax is not between two GEMMs")
        self.input_of(at, end.inputs[0], "Transpose", (0, 2, 1, 3))
        operands, heads = [], set()
        orders = ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
        for value, order in zip((*scores.inputs[:2], joined.inputs[1]), orders, strict=True):
            split = self.input_of(at, value, "Transpose", order)
            heads.add(split.shape[2] if split.shape is not None and len(split.shape) == 4 else None)
            product, bias = _biased(self.input_of(at, split, "Reshape"))
            if product is None or bias is None:
                self.refuse(f"{at}: Q, K and V do not come from three linear layers")
            operands.append((product, bias))
        count = heads.pop()
        if heads or not isinstance(count, int):
            self.refuse(f"{at}: the number of heads is not known")
        return end, operands, count

    def is_mask(self, value: ir.Value) -> bool:
        """Return whether a tensor is a padding mask.

        A padding mask depends on attention_mask alone, is 0 at tokens and at most MASK_VALUE at padded positions.
        """
        source = next((one for one in self.model.graph.inputs if one.name == "attention_mask"), None)
        feed = np.array([[1, 1, 1], [1, 0, 0]], np.int32)
        if source is None or value.const_value is not None:
            return False
        found = self.run([source], value, {"attention_mask": feed}).reshape(2, 3)
        return not found[feed == 1].any() and bool((found[feed == 0] <= MASK_VALUE).all())


def _lengths(model: ir.Model) -> ir.Value:
    """Return the tensor with the number of real tokens of each row, at least 1, int32 [batch].

    The first call adds the nodes that compute it at the beginning of the graph.
    """
    known = next((value for node in nodes(model, "Max") for value in node.outputs if value.name == LENGTHS), None)
    if known is not None:
        return known
    mask = next(value for value in model.graph.inputs if value.name == "attention_mask")
    dimension = add_initializer(model, "mask_dimension", np.array([1], np.int64))
    least = add_initializer(model, "least_length", np.array(1, np.int32))
    total = ir.node("ReduceSum", [mask, dimension], {"keepdims": 0}, name=f"{LENGTHS}.sum")
    made = ir.node("Max", [total.outputs[0], least], name=LENGTHS)
    for node, name in ((total, f"{LENGTHS}.sum"), (made, LENGTHS)):
        value = node.outputs[0]
        value.name, value.type = name, ir.TensorType(ir.DataType.INT32)
        value.shape = ir.Shape([mask.shape[0] if mask.shape is not None else None])
    model.graph.insert_before(model.graph[0], [total, made])
    return made.outputs[0]


def _biased(value: ir.Value | None, *, readers: int = 1) -> tuple[ir.Value | None, ir.Value | None]:
    """Return (x, bias) if `value` is x + bias with a constant bias and `readers` nodes read it, else (value, None)."""
    add = _producer(value, "Add")
    if add is None or len(add.outputs[0].uses()) != readers:
        return value, None
    for bias, other in (add.inputs, reversed(add.inputs)):
        array = constant(bias)
        if array is not None and array.ndim == 1:
            return other, bias
    return value, None


def _is_embedding(*values: ir.Value) -> bool:
    """Return whether one of the values is looked up in an embedding table, or is a sum with such a value."""
    producers = [value.producer() for value in values]
    return any(
        node is not None
        and (
            (node.op_type == "Gather" and constant(node.inputs[0]) is not None)
            or (node.op_type == "Add" and _is_embedding(*[value for value in node.inputs if value is not None]))
        )
        for node in producers
    )


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def _only_reader(node: ir.Node | None, op_type: str) -> ir.Node | None:
    uses = list(node.outputs[0].uses()) if node is not None else []
    return uses[0].node if len(uses) == 1 and uses[0].node.op_type == op_type else None


def _is(value: ir.Value | None, number: float) -> bool:
    array = constant(value)
    return array is not None and array.size == 1 and abs(array.item() - number) < 1e-6


def _replace(model: ir.Model, old: ir.Node, new: ir.Node, *, name: str) -> None:
    """Replace the node `old` by `new`, which gets the name `name`. The name of the output does not change."""
    made, known = new.outputs[0], old.outputs[0]
    new.name, made.shape, made.type = name, known.shape, known.type
    model.graph.insert_before(old, new)
    known.replace_all_uses_with(made)
    made.name, known.name = known.name, f"{known.name}.replaced"
    model.graph.remove(old, safe=True)
