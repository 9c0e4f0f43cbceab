"""ONNX graphs, and the passes that change them: one idea a file, each a small function.

A pass takes an `onnx_ir.Model`, changes it in place and returns how many places it changed. To
add one: a module here with one function, and its line where it belongs (`clean.PASSES` for what
keeps every value).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from toolchain.errors import InputError
from toolchain.tensors import Array

MAX_BYTES = 2**31 - 2**20
"""What a protobuf message holds, less room for the nodes."""


def load(path: Path) -> ir.Model:
    """Read an ONNX file.

    Raises:
        InputError: it is missing or no ONNX graph.
    """
    try:
        return ir.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Give an ONNX graph.") from None
    except Exception as error:  # protobuf's DecodeError has no public home
        raise InputError(f"{path}: not an ONNX graph ({type(error).__name__}). Build it again.") from error


def save(model: ir.Model, path: Path) -> None:
    """Write a graph as one file.

    Raises:
        InputError: it is larger than one ONNX file can be.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if size > MAX_BYTES:
        raise InputError(f"{path.name}: {size / 1e9:.1f} GB, and one ONNX file holds 2 GB. Choose a smaller model.")
    ir.save(model, path)


def constant(value: ir.Value | None) -> Array | None:
    """Return the array that a value always has, or None if it depends on the inputs."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def add_initializer(model: ir.Model, name: str, array: Array) -> ir.Value:
    """Add a constant called `name` to the graph, or return the one that has that name."""
    if name in model.graph.initializers:
        return model.graph.initializers[name]
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)  # ascontiguousarray would give a scalar a dimension
    shape = ir.Shape(array.shape)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    model.graph.initializers[name] = value
    return value


def nodes(model: ir.Model, *op_types: str) -> Iterator[ir.Node]:
    """Yield the nodes of these types, in order; safe against changes while it runs."""
    yield from [node for node in model.graph if node.op_type in op_types]


def linear_layers(model: ir.Model) -> list[ir.Node]:
    """Return the MatMul nodes with a constant second input: linear layers applied to each token.

    The classification head sees one vector a row and is exported as Gemm, so it is not among them.
    """
    return [node for node in nodes(model, "MatMul") if constant(node.inputs[1]) is not None]


def attention_products(model: ir.Model) -> list[ir.Node]:
    """Return the MatMul nodes of two activations: Q times K and probabilities times V."""
    return [node for node in nodes(model, "MatMul") if constant(node.inputs[1]) is None]


def tidy(model: ir.Model) -> int:
    """Merge equal nodes and constants, and drop what nothing reads and what the exporter noted."""
    passes = ir.passes.Sequential(
        common.CommonSubexpressionEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    return int(passes(model).modified)


def with_outputs(model: ir.Model, names: list[str]) -> bytes:
    """Return the graph, serialised, with these tensors as its only outputs; the model stays as it is."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    kept = list(model.graph.outputs)
    model.graph.outputs[:] = [values[name] for name in names]
    try:
        return serialised(model)
    finally:
        model.graph.outputs[:] = kept


def serialised(model: ir.Model) -> bytes:
    """Return the graph as one ONNX message."""
    return bytes(ir.to_proto(model).SerializeToString())
