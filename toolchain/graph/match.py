"""Matching of graphs by structure: find the layers that compute a value, and evaluate parts of a graph."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from toolchain.base.tensors import Array
from toolchain.errors import InputError
from toolchain.graph import constant

Weight = NDArray[np.float32]

# Name -> activation function. The tanh form of GELU differs from GELU by up to 5e-4, so it does not match `gelu`.
ACTIVATIONS: dict[str, Callable[[Weight], Weight]] = {
    "gelu": lambda x: (x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2).astype(np.float32),
    "relu": lambda x: np.maximum(x, 0),
}


@dataclass(frozen=True)
class Linear:
    """A linear layer x @ weight + bias: weight float32 [in, out], bias float32 [out]."""

    weight: Weight
    bias: Weight


@dataclass(frozen=True)
class Norm:
    """A LayerNorm over the hidden dimension: gamma and beta float32 [hidden]."""

    gamma: Weight
    beta: Weight
    epsilon: float


def copy_nodes(nodes: list[ir.Node], known: dict[ir.Value, ir.Value]) -> list[ir.Node]:
    """Return copies of `nodes`. They must be in graph order.

    `known` maps each value that the nodes read to the value that the copies read. The function adds the nodes' outputs
    and copies of missing constants to `known`. The caller must add these constants to its graph as initializers.
    """
    copies = []
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in known and value.const_value is not None:
                copy = ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
                known[value] = copy
        inputs = [None if value is None else known[value] for value in node.inputs]
        made = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
        made.name = node.name
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            known[old] = new
        copies.append(made)
    return copies


class GatherElements(OpRun):
    """GatherElements for onnx.reference, whose own implementation fails on more than 64 columns (seen in onnx 1.23)."""

    op_domain = ""

    def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        return (np.take_along_axis(data, indices, axis),)


class Matcher:
    """Follows one graph from outputs to inputs. Where its structure is unexpected, `refuse` raises an InputError.

    `where` is the graph's name and `at` a place in the graph, such as "layer 0". Both appear in messages.
    """

    def __init__(self, model: ir.Model, where: str) -> None:
        self.model, self.where = model, where

    def refuse(self, what: str) -> NoReturn:
        raise InputError(
            f"{self.where}: {what}, so the attention plugin cannot run the model. Build with --attention native."
        )

    def input_of(self, at: str, value: ir.Value | None, op_type: str, order: tuple[int, ...] | None = None) -> ir.Value:
        """Return the first input of the node that computes `value`.

        A graph is refused if this node lacks the type `op_type` or, if `order` is given, this permutation of axes.
        """
        node = value.producer() if value else None
        source = node.inputs[0] if node is not None and node.op_type == op_type else None
        if node is None or source is None or (order is not None and tuple(node.attributes["perm"].as_ints()) != order):
            self.refuse(f"{at}: attention lacks the {op_type} node of a known encoder")
        return source

    def linear(self, at: str, what: str, value: ir.Value | None) -> tuple[Linear, ir.Value]:
        """Return the linear layer that computes `value`, and the layer's input; `what` names the layer in messages."""
        node = value.producer() if value else None
        bias: Array | None = None
        if node is not None and node.op_type == "Add":
            left, right = node.inputs
            bias, product = (constant(right), left) if constant(right) is not None else (constant(left), right)
            node = product.producer() if product and bias is not None else None
        weight = constant(node.inputs[1]) if node is not None and node.op_type == "MatMul" else None
        source = node.inputs[0] if node is not None else None
        if weight is None or weight.ndim != 2 or source is None:
            self.refuse(f"{at}: {what} is not a linear layer")
        return Linear(weight, np.zeros(weight.shape[1], np.float32) if bias is None else bias.reshape(-1)), source

    def biased(self, product: ir.Node) -> ir.Value:
        """Return the output of the linear layer whose MatMul is `product`, with its bias added if it has one."""
        uses = list(product.outputs[0].uses())
        add = uses[0].node if len(uses) == 1 and uses[0].node.op_type == "Add" else None
        fixed = add is not None and any(constant(value) is not None for value in add.inputs)
        return add.outputs[0] if add is not None and fixed else product.outputs[0]

    def residual(self, at: str, norm: ir.Node, kept: ir.Value) -> ir.Value:
        """Return the tensor that a residual addition adds to `kept`; the LayerNorm `norm` must read the sum."""
        node = norm.inputs[0].producer() if norm.inputs[0] else None
        if node is None or node.op_type != "Add" or kept not in node.inputs:
            self.refuse(f"{at}: {norm.name} does not normalise the sum of a block's input and output")
        other = node.inputs[1] if node.inputs[0] is kept else node.inputs[0]
        assert other is not None
        return other

    def norm(self, node: ir.Node) -> Norm:
        """Return the weights of a LayerNorm over the hidden dimension."""
        gamma, beta = (constant(value) for value in (*node.inputs[1:], None)[:2])
        if gamma is None or axis(node, -1) not in (-1, 2):
            self.refuse(f"{node.name} is not a LayerNorm over the hidden dimension")
        epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
        return Norm(gamma, np.zeros_like(gamma) if beta is None else beta, epsilon)

    def activation(self, at: str, inner: ir.Value, activated: ir.Value, size: int) -> str:
        """Return the key of ACTIVATIONS for the function that computes `activated` from `inner`, both of width `size`.

        The function is recognised by its values from -8 to 8.
        """
        x = np.linspace(-8, 8, size, dtype=np.float32).reshape(1, 1, size)
        found = self.run([inner], activated, {str(inner.name): x})
        for name, function in ACTIVATIONS.items():
            if np.abs(found - function(x)).max() < 1e-5:
                return name
        self.refuse(f"{at}: the activation function is not one of {', '.join(ACTIVATIONS)}")

    def run(self, inputs: list[ir.Value], output: ir.Value, feeds: dict[str, Array]) -> Array:
        """Evaluate the nodes between `inputs` and `output` with the arrays `feeds`; return the output's array."""
        needed, pending = set(), [output]
        while pending:
            value = pending.pop()
            node = value.producer()
            if value in inputs or value.const_value is not None or node in needed:
                continue
            if node is None:
                self.refuse(f"{output.name} depends on the graph input {value.name}, unlike in a known encoder")
            needed.add(node)
            pending += [source for source in node.inputs if source is not None]
        known = {value: ir.Value(name=value.name, type=value.type, shape=value.shape) for value in inputs}
        kept = list(known.values())
        nodes = copy_nodes([node for node in self.model.graph if node in needed], known)
        fixed = [value for value in known.values() if value.const_value is not None]
        part = ir.Graph(
            kept, [known[output]], nodes=nodes, initializers=fixed, opset_imports=self.model.opset_imports, name="part"
        )
        proto = ir.to_proto(ir.Model(part, ir_version=self.model.ir_version))
        try:
            results: Any = ReferenceEvaluator(proto, new_ops=[GatherElements]).run(None, feeds)
        except Exception as error:  # operators raise different classes for inputs that they do not support
            self.refuse(f"onnx.reference cannot compute {output.name} ({type(error).__name__})")
        made: Array = results[0]
        return made


def axis(node: ir.Node, default: int) -> int:
    """Return a node's attribute `axis`, or `default`."""
    return node.attributes["axis"].as_int() if "axis" in node.attributes else default


def broadcasts_over_queries(value: ir.Value) -> bool:
    """Return whether a tensor is [batch, 1, 1, sequence]: the same for every head and query."""
    return value.shape is not None and len(value.shape) == 4 and (value.shape[1], value.shape[2]) == (1, 1)


def hidden_size(value: ir.Value) -> int | None:
    """Return the last dimension of a tensor, or None if it is dynamic."""
    size = value.shape[-1] if value.shape is not None else None
    return size if isinstance(size, int) else None
