"""An encoder's ONNX graph, run by PyTorch node by node, so that gradients reach its weights.

Q/DQ pairs are computed by PyTorch's own fake quantization: the value is rounded as the graph rounds it, and its
gradient is passed on unchanged, or 0 where the value was clipped (Jacob et al. 2018, arXiv 1712.05877).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from toolchain.errors import InputError, first_line
from toolchain.graph import constant

if TYPE_CHECKING:
    import torch

# ONNX operators without attributes -> the function of torch that computes them.
PLAIN = {
    "Abs": "abs",
    "Add": "add",
    "And": "logical_and",
    "Cos": "cos",
    "Equal": "eq",
    "Erf": "erf",
    "Exp": "exp",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "Less": "lt",
    "LessOrEqual": "le",
    "Log": "log",
    "MatMul": "matmul",
    "Max": "maximum",
    "Min": "minimum",
    "Mul": "mul",
    "Neg": "neg",
    "Not": "logical_not",
    "Or": "logical_or",
    "Pow": "pow",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Sin": "sin",
    "Sqrt": "sqrt",
    "Sub": "sub",
    "Tanh": "tanh",
    "Where": "where",
}

# Computes a weight from the trained parameters. It is called in each pass.
Made = Callable[[], "torch.Tensor"]


@dataclass(frozen=True)
class TorchGraph:
    """An ONNX graph that PyTorch runs.

    `made` has the functions that compute the trained weights for each run, and `fixed` has the other constants.
    """

    model: ir.Model
    made: Mapping[ir.Value, Made]
    fixed: "Mapping[ir.Value, torch.Tensor]"

    def run(
        self, inputs: "Mapping[str, torch.Tensor]", given: "Mapping[ir.Value, torch.Tensor] | None" = None
    ) -> "dict[ir.Value, torch.Tensor]":
        """Return every value of the graph for a batch. The inputs are integers [batch, sequence], by name.

        Values in `given` are used as they are, instead of being computed.

        Raises:
            InputError: see `compute`.
        """
        known = {**self.fixed, **{value: make() for value, make in self.made.items()}, **(given or {})}
        known |= {value: inputs[str(value.name)] for value in self.model.graph.inputs}
        for node in self.model.graph:
            if node.outputs[0] not in known:
                values = [None if value is None else known[value] for value in node.inputs]
                known |= zip(node.outputs, compute(node, values), strict=False)
        return known

    def logits(self, inputs: "Mapping[str, torch.Tensor]") -> "torch.Tensor":
        """Return the logits of a batch."""
        return self.run(inputs)[self.model.graph.outputs[0]]


def torch_graph(model: ir.Model, made: Mapping[ir.Value, Made]) -> TorchGraph:
    """Return a graph that PyTorch can run; `made` has the functions that compute the trained weights.

    Raises:
        InputError: the graph has an operator that is not supported here.
    """
    import torch

    for node in model.graph:
        if node.domain or (node.op_type not in PLAIN and node.op_type not in OPERATORS):
            raise InputError(
                f"the graph has the operator {node.op_type}, which heal cannot train through. Use `toolchain tune`."
            )
    fixed = {}
    for value in model.graph.initializers.values():
        if value not in made and (array := constant(value)) is not None:
            fixed[value] = torch.from_numpy(np.array(array))
    return TorchGraph(model, made, fixed)


def compute(node: ir.Node, values: "Sequence[torch.Tensor | None]") -> "tuple[torch.Tensor, ...]":
    """Return the outputs of a node for its inputs; an input that the node leaves out is None.

    Raises:
        InputError: the operator is used in a form that is not supported here, or memory runs out.
    """
    attributes = {name: one.value for name, one in node.attributes.items() if isinstance(one, ir.Attr)}
    try:
        found = _function(node)(*values, **attributes)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"PyTorch cannot run the operator {node.op_type} of {node.name}: {first_line(error)}. Use `toolchain tune`."
        ) from error
    return found if isinstance(found, tuple) else (found,)


def _function(node: ir.Node) -> Callable[..., Any]:
    """Return the function that computes a node: it takes the inputs in order, and the attributes by keyword."""
    import torch

    if node.op_type in PLAIN:
        return getattr(torch, PLAIN[node.op_type])  # type: ignore[no-any-return]
    if node.op_type == "Split":
        return functools.partial(_split, len(node.outputs))
    return OPERATORS[node.op_type]


def _quantize(x: Any, scale: Any, zero: Any, *, axis: int = 1) -> Any:
    """Return `x` after QuantizeLinear and DequantizeLinear; gradients pass through both.

    A scale with more than one element has one element per channel along `axis`.
    """
    import torch

    limits = torch.iinfo(zero.dtype)
    if scale.numel() > 1:
        channels = scale.float(), zero.int(), axis % x.ndim
        return torch.fake_quantize_per_channel_affine(x, *channels, limits.min, limits.max)
    return torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), limits.min, limits.max)


def _div(x: Any, y: Any) -> Any:
    return x / y if x.is_floating_point() else x.div(y, rounding_mode="trunc")


def _cast(x: Any, *, to: int, **_: Any) -> Any:
    import torch

    return x.to(torch.from_numpy(np.empty(0, ir.DataType(to).numpy())).dtype)


def _reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
    sizes = [x.shape[at] if size == 0 and not allowzero else size for at, size in enumerate(shape.tolist())]
    return x.reshape(sizes)


def _gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    axis %= x.ndim
    flat = indices.reshape(-1).long()
    found = x.index_select(axis, flat.where(flat >= 0, flat + x.shape[axis]))
    return found.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def _slice(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    count = len(starts)
    places = list(range(count)) if axes is None else axes.tolist()
    strides = [1] * count if steps is None else steps.tolist()
    chosen = [slice(None)] * x.ndim
    for axis, start, end, stride in zip(places, starts.tolist(), ends.tolist(), strides, strict=True):
        chosen[axis] = slice(start, end, stride)
    return x[tuple(chosen)]


def _expand(x: Any, shape: Any) -> Any:
    import torch

    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))  # type: ignore[no-untyped-call]


def _shape(x: Any, *, start: int = 0, end: int | None = None) -> Any:
    import torch

    return torch.tensor(x.shape)[start:end]


def _constant_of_shape(shape: Any, *, value: Any = None) -> Any:
    import torch

    filled = np.zeros(1, np.float32) if value is None else value.numpy()
    return torch.from_numpy(np.array(filled)).reshape(()).expand(shape.tolist()).clone()


def _constant(*, value: Any) -> Any:
    import torch

    return torch.from_numpy(np.array(value.numpy()))


def _range(start: Any, end: Any, step: Any) -> Any:
    import torch

    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _running_sum(x: Any, axis: Any, *, exclusive: int = 0, reverse: int = 0) -> Any:
    if exclusive or reverse:
        raise InputError(
            "the graph has an exclusive or reversed CumSum, which heal cannot train through. Use `toolchain tune`."
        )
    return x.cumsum(int(axis))


def _sum(*terms: Any) -> Any:
    return functools.reduce(lambda one, other: one + other, terms)


def _concat(*parts: Any, axis: int) -> Any:
    import torch

    return torch.cat(parts, dim=axis)


def _clip(x: Any, least: Any = None, most: Any = None) -> Any:
    return x.clamp(least, most)


def _split(count: int, x: Any, sizes: Any = None, *, axis: int = 0, **_: Any) -> Any:
    return x.split(-(-x.shape[axis] // count) if sizes is None else sizes.tolist(), dim=axis)


def _squeeze(x: Any, axes: Any = None) -> Any:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


def _unsqueeze(x: Any, axes: Any) -> Any:
    rank = x.ndim + len(axes)
    for axis in sorted(at % rank for at in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _reduce(name: str, x: Any, axes: Any = None, *, keepdims: int = 1, **_: Any) -> Any:
    import torch

    places = tuple(range(x.ndim)) if axes is None else tuple(axes.tolist())
    return getattr(torch, name)(x, dim=places, keepdim=bool(keepdims))


def _softmax(x: Any, *, axis: int = -1) -> Any:
    return x.softmax(axis)


def _norm(x: Any, scale: Any, bias: Any = None, *, axis: int = -1, epsilon: float = 1e-5, **_: Any) -> Any:
    from torch.nn import functional

    return functional.layer_norm(x, x.shape[axis % x.ndim :], scale, bias, epsilon)


def _gemm(x: Any, y: Any, z: Any = None, *, alpha: float = 1.0, beta: float = 1.0, **turned: int) -> Any:
    made = alpha * ((x.T if turned.get("transA") else x) @ (y.T if turned.get("transB") else y))
    return made if z is None else made + beta * z


def _gelu(x: Any, *, approximate: str = "none") -> Any:
    from torch.nn import functional

    return functional.gelu(x, approximate=approximate)


# The other operators -> their functions, which take the inputs in order and the attributes by keyword. A graph with an
# operator that is in neither table is refused.
OPERATORS: dict[str, Callable[..., Any]] = {
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "CumSum": _running_sum,
    "DequantizeLinear": lambda x, *_: x,  # `_quantize` and the made weights are dequantized already
    "Div": _div,
    "Expand": _expand,
    "Flatten": lambda x, axis=1: x.flatten(axis).reshape(-1, x.shape[axis:].numel()),
    "Gather": _gather,
    "GatherElements": lambda x, indices, axis=0: x.gather(axis, indices.long()),
    "Gelu": _gelu,
    "Gemm": _gemm,
    "Identity": lambda x: x,
    "LayerNormalization": _norm,
    "QuantizeLinear": _quantize,
    "Range": _range,
    "ReduceMax": functools.partial(_reduce, "amax"),
    "ReduceMean": functools.partial(_reduce, "mean"),
    "ReduceSum": functools.partial(_reduce, "sum"),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sum": _sum,
    "Transpose": lambda x, perm: x.permute(*perm),
    "Unsqueeze": _unsqueeze,
}
