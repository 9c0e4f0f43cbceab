"""ONNX graphs and the passes that change them, one pass a file.

A pass takes an `onnx_ir.Model`, changes it in place and returns the number of places that it changed. To add one,
write a module here with one function, and call it where it belongs: `clean.PASSES` for a pass that keeps every value.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from toolchain.errors import InputError
from toolchain.tensors import Array

# A protobuf message holds less than 2 GiB; 1 MiB of it is left for the nodes.
MAX_BYTES = 2**31 - 2**20


def load(path: Path | bytes) -> ir.Model:
    """Read an ONNX file, or an ONNX message.

    Raises:
        InputError: the file is missing, or it is not an ONNX graph.
    """
    if isinstance(path, bytes):
        return ir.from_proto(onnx.load_model_from_string(path))
    try:
        return ir.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Give an ONNX graph.") from None
    except Exception as error:  # protobuf does not export the class of its DecodeError
        raise InputError(f"{path}: not an ONNX graph ({type(error).__name__}). Build it again.") from error


def save(model: ir.Model, path: Path) -> None:
    """Write a graph as one file.

    Raises:
        InputError: the graph is larger than one ONNX file can be.
    """
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if size > MAX_BYTES:
        raise InputError(f"{path.name}: {size / 1e9:.1f} GB, and one ONNX file holds 2 GB. Choose a smaller model.")
    ir.save(model, path)


def constant(value: ir.Value | None) -> Array | None:
    """Return the array of a value that is constant, or None if it depends on the graph's inputs."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def add_initializer(model: ir.Model, name: str, array: Array) -> ir.Value:
    """Add the constant `name` to the graph, or return the constant that already has this name."""
    if name in model.graph.initializers:
        return model.graph.initializers[name]
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)  # ascontiguousarray would give a scalar a dimension
    shape = ir.Shape(array.shape)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    model.graph.initializers[name] = value
    return value


def nodes(model: ir.Model, *op_types: str) -> Iterator[ir.Node]:
    """Yield the nodes of these types in graph order. The graph may change meanwhile."""
    yield from [node for node in model.graph if node.op_type in op_types]


def tidy(model: ir.Model) -> int:
    """Merge equal nodes and constants, remove unused nodes and the exporter's metadata; return 1 or 0."""
    passes = ir.passes.Sequential(
        common.CommonSubexpressionEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    return int(passes(model).modified)


def with_outputs(model: ir.Model, names: list[str]) -> bytes:
    """Return the graph as an ONNX message whose only outputs are the named tensors. The model stays unchanged."""
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
