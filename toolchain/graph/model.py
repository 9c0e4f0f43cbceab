"""Graphs as `onnx_ir.Model`: reading, writing, and what the passes share."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from toolchain import graph
from toolchain.base.files import sha256_file
from toolchain.base.tensors import Array
from toolchain.errors import InputError
from toolchain.graph import WEIGHTS, Message, check_outside, data_file

# Weights of at most this number of bytes stay beside the nodes, also if the others do not.
LEAST_OUTSIDE = 1024

# The types of weights that a message has outside it. ONNX Runtime takes arrays of these types, and none of FP8. Of the
# others that it takes, graphs have only small weights.
NATIVE = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT64}

# Key of a graph's metadata with the digest of the file of its weights.
WEIGHTS_SHA256 = "weights_sha256"


def load(path: Path | bytes) -> ir.Model:
    """Read an ONNX file with its weights, or an ONNX message. Weights in a file of their own are read when needed.

    Raises:
        InputError: the file is missing, it is not an ONNX graph, or the file of its weights is missing, too short or
            outside the folder.
    """
    if isinstance(path, bytes):
        try:
            model = ir.from_proto(onnx.load_model_from_string(path))
        except Exception as error:  # protobuf does not export the class of its DecodeError
            raise InputError(f"not an ONNX graph ({type(error).__name__}). Build it again.") from error
        for name, array in getattr(path, "weights", {}).items():
            model.graph.initializers[name].const_value = ir.tensor(array, name=name)
        return model
    try:
        model = ir.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Give an ONNX graph.") from None
    except Exception as error:  # protobuf does not export the class of its DecodeError
        raise InputError(f"{path}: not an ONNX graph ({type(error).__name__}). Build it again.") from error
    for tensor in _outside(model):
        check_outside(path, str(tensor.location), tensor.offset or 0, tensor.length or 0)
    return model


def save(model: ir.Model, path: Path) -> None:
    """Write a graph. Weights that do not fit into its file, beside the nodes, are written to `data_file(path)`.

    The graph then holds the digest of that file, so that a digest of the graph is one of the weights too.
    """
    if _size(model) <= graph.MAX_BYTES:
        _read_outside(model.graph.initializers.values())
        ir.save(model, path)
        return
    data = data_file(path)
    ir.save(model, path, external_data=data.name)
    written = ir.load(path)
    written.metadata_props[WEIGHTS_SHA256] = sha256_file(data)
    ir.save(written, path)


def _size(model: ir.Model) -> int:
    """Return the bytes of a graph's weights."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def _outside(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Yield the weights that ONNX calls external data: they are stored outside the graph file."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            yield value.const_value


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


def with_outputs(model: ir.Model, names: list[str]) -> Message:
    """Return the graph as a message whose only outputs are the named tensors. The model stays unchanged."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    kept = list(model.graph.outputs)
    model.graph.outputs[:] = [values[name] for name in names]
    try:
        return message(model)
    finally:
        model.graph.outputs[:] = kept


def message(model: ir.Model, *, most_bytes: int = 0) -> Message:
    """Return the graph in memory as ONNX Runtime opens it, of any size. The values of the model stay as they are.

    It holds all weights if they take at most `most_bytes` together. Otherwise, as by default, it holds only small ones
    and those of types outside NATIVE, such as FP8. The model and copies of it share the arrays of the others.
    """
    if _size(model) <= most_bytes:
        small = Message(serialised(model))
        small.weights = {}
        return small
    read_weights(model)
    copy, weights = model.clone(), dict[str, Array]()
    common.RemoveUnusedNodesPass()(copy)  # ONNX Runtime drops a weight that no node reads before it looks for it
    for name, value in copy.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or not _is_outside(tensor):
            continue
        weights[name] = tensor.numpy()
        place = {"location": WEIGHTS, "offset": 0, "length": tensor.nbytes, "base_dir": ""}
        value.const_value = ir.ExternalTensor(**place, dtype=tensor.dtype, shape=tensor.shape, name=name)  # type: ignore[arg-type]
    _read_outside(value for name, value in copy.graph.initializers.items() if name not in weights)
    made = Message(ir.to_proto(copy).SerializeToString())
    made.weights = weights
    return made


def read_weights(model: ir.Model) -> None:
    """Read the weights that are in the graph's own file into arrays, so that copies of the graph share them.

    Before, they are in the message that was the file, and each use copies them from there. Afterwards it is freed.
    """
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.serde.TensorProtoTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)


def _read_outside(values: Iterable[ir.Value]) -> None:
    """Read weights that are in a file of their own into memory."""
    for value in values:
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)


def _is_outside(tensor: ir.TensorProtocol) -> bool:
    """Return whether a message has only the place of a weight. Small ones are in it: shapes may follow from them."""
    return tensor.nbytes > LEAST_OUTSIDE and tensor.dtype in NATIVE


def serialised(model: ir.Model) -> bytes:
    """Return the graph as one ONNX message.

    Raises:
        InputError: the graph is larger than one message can be.
    """
    if (size := _size(model)) > graph.MAX_BYTES:
        raise InputError(
            f"{model.graph.name or 'graph'}: {size / 1e9:.1f} GB, and one message holds 2 GB. Build with --precision "
            "fp16 or int8, or run it with ONNX Runtime."
        )
    _read_outside(model.graph.initializers.values())
    return bytes(ir.to_proto(model).SerializeToString())
