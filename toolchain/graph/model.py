"""Graphs as `onnx_ir.Model`: reading and writing them, and functions that several passes use."""

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

# Weights of at most this many bytes, such as shapes, stay inside a message even if larger weights do not.
LEAST_OUTSIDE = 1024

# Types of the weights that `message` keeps outside the message, as arrays. ONNX Runtime accepts arrays of these types,
# but not of FP8. It accepts other types too, but graphs have only small weights of these.
NATIVE = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT64}

# Key of a graph's metadata for the SHA-256 of its weights file.
WEIGHTS_SHA256 = "weights_sha256"


def load(path: Path | bytes) -> ir.Model:
    """Return the graph in an ONNX file or in an ONNX message. Weights in a separate file are read when they are used.

    Raises:
        InputError: the file is missing or not an ONNX graph, or its weights file is missing, too short or outside the
            graph's folder.
    """
    if isinstance(path, bytes):
        try:
            model = ir.from_proto(onnx.load_model_from_string(path))
        except Exception as error:  # protobuf's DecodeError, or an error of onnx_ir's conversion
            raise InputError(f"not an ONNX graph ({type(error).__name__}). Build the graph again.") from error
        for name, array in getattr(path, "weights", {}).items():
            model.graph.initializers[name].const_value = ir.tensor(array, name=name)
        return model
    try:
        model = ir.load(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Give the path of an ONNX graph.") from None
    except Exception as error:  # such as protobuf's DecodeError, or OSError
        raise InputError(f"{path}: not an ONNX graph ({type(error).__name__}). Build the graph again.") from error
    for tensor in _outside(model):
        check_outside(path, str(tensor.location), tensor.offset or 0, tensor.length or 0)
    return model


def save(model: ir.Model, path: Path) -> None:
    """Write a graph to a file. If its weights exceed graph.MAX_BYTES, write them to `data_file(path)` instead.

    The graph's metadata then has the SHA-256 of the weights file, so a digest of the graph file covers the weights too.
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
    """Return the size of a graph's weights in bytes."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)


def _outside(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    """Yield the external weights of a graph: those that are stored outside the graph file."""
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
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)  # ascontiguousarray would turn a scalar into [1]
    shape = ir.Shape(array.shape)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape, const_value=tensor)
    model.graph.initializers[name] = value
    return value


def nodes(model: ir.Model, *op_types: str) -> Iterator[ir.Node]:
    """Yield the nodes of the given types in graph order. The caller may change the graph during the iteration."""
    yield from [node for node in model.graph if node.op_type in op_types]


def tidy(model: ir.Model) -> int:
    """Merge equal nodes and constants, remove unused nodes and the exporter's metadata, in place.

    Return 1 if the graph changed, else 0.
    """
    passes = ir.passes.Sequential(
        common.CommonSubexpressionEliminationPass(),
        common.DeduplicateInitializersPass(),
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    return int(passes(model).modified)


def with_outputs(model: ir.Model, names: list[str]) -> Message:
    """Return the graph as an ONNX message whose only outputs are the named tensors. The model stays unchanged."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    kept = list(model.graph.outputs)
    model.graph.outputs[:] = [values[name] for name in names]
    try:
        return message(model)
    finally:
        model.graph.outputs[:] = kept


def message(model: ir.Model, *, most_bytes: int = 0) -> Message:
    """Return the graph as a message that ONNX Runtime can open, whatever its size. The model's values do not change.

    The message contains all weights if they take at most `most_bytes` together. Otherwise, and by default, it contains
    only small weights and those of types outside NATIVE, such as FP8. `Message.weights` has the arrays of the others;
    message and model share these arrays.
    """
    if _size(model) <= most_bytes:
        small = Message(serialised(model))
        small.weights = {}
        return small
    read_weights(model)
    copy, weights = model.clone(), dict[str, Array]()
    # ONNX Runtime drops weights that no node reads, and then fails because it cannot find them in the graph.
    common.RemoveUnusedNodesPass()(copy)
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
    """Convert weights from the graph's own file to arrays, in place, so that clones of the graph share them.

    A loaded graph keeps such weights in the parsed protobuf message, and each use copies them. After the conversion the
    message is freed.
    """
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.serde.TensorProtoTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)


def _read_outside(values: Iterable[ir.Value]) -> None:
    """Read external weights into memory, in place."""
    for value in values:
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)


def _is_outside(tensor: ir.TensorProtocol) -> bool:
    """Return whether `message` stores a weight outside the message. Small weights, such as shapes, stay inside."""
    return tensor.nbytes > LEAST_OUTSIDE and tensor.dtype in NATIVE


def serialised(model: ir.Model) -> bytes:
    """Return the graph as one ONNX message.

    Raises:
        InputError: the weights are larger than one message can be, 2 GB.
    """
    if (size := _size(model)) > graph.MAX_BYTES:
        raise InputError(
            f"{model.graph.name or 'graph'}: its weights take {size / 1e9:.1f} GB, and one ONNX message holds 2 GB. "
            "Build with --precision fp16 or int8, or run the graph with ONNX Runtime."
        )
    _read_outside(model.graph.initializers.values())
    return bytes(ir.to_proto(model).SerializeToString())
