"""ONNX graphs and the passes that change them. Each pass has its own file.

A pass takes an `onnx_ir.Model`, changes it in place and returns the number of changes that it made. To add one,
write a module here with one function. Add it to `clean.PASSES` if every graph needs it and it leaves the logits
unchanged; otherwise call it in the build step that needs it.

This file contains what is needed to run a graph: it reads graph files and checks their digests. model.py has the
functions that change graphs; they are imported at their first use, because onnx_ir imports SymPy, which takes a second.
"""

import mmap
import os
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from toolchain.base.files import check_digest, open_listed, read_checked, sha256_open
from toolchain.base.tensors import Array
from toolchain.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toolchain.graph.model import (
        add_initializer,
        constant,
        load,
        message,
        nodes,
        read_weights,
        save,
        serialised,
        tidy,
        with_outputs,
    )

__all__ = [
    "add_initializer",
    "constant",
    "load",
    "message",
    "nodes",
    "read_weights",
    "save",
    "serialised",
    "tidy",
    "with_outputs",
]

# A protobuf message holds less than 2 GiB; 1 MiB of it is left for the nodes.
MAX_BYTES = 2**31 - 2**20

# Key of a graph's metadata. It means that rows must be padded on the right, as our tokenizers pad them.
RIGHT_PADDED = "toolchain.right_padded"

# File name that a `Message` states for its external weights. No such file exists or is opened: sessions get the arrays
# in `Message.weights`.
WEIGHTS = "weights"


# Identity of a weights file (device, inode, size, times) and its SHA-256 -> the memory map of the file, uint8 [size].
# Open sessions share the map, and it is dropped with the last of them.
_MAPS: "weakref.WeakValueDictionary[tuple[int | str, ...], Array]" = weakref.WeakValueDictionary()


def __getattr__(name: str) -> object:
    import importlib

    if name in __all__:
        return getattr(importlib.import_module("toolchain.graph.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Message(bytes):
    """A serialised ONNX graph (ModelProto). `weights` maps names to arrays, for weights that are not in the message."""

    weights: dict[str, Array]


def read_proto(path: Path | bytes) -> onnx.ModelProto:
    """Return the ONNX graph in a file or in bytes. Weights in a separate file are not read.

    Raises:
        InputError: the file is missing, or it is not an ONNX graph.
    """
    where = "" if isinstance(path, bytes) else f"{path}: "
    try:
        return onnx.load_model_from_string(path if isinstance(path, bytes) else path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{where}no such file. Give the path of an ONNX graph.") from None
    except Exception as error:  # such as protobuf's DecodeError, or OSError
        raise InputError(f"{where}not an ONNX graph ({type(error).__name__}). Build the graph again.") from error


def file_has_halves(file: Path) -> bool:
    """Return whether a graph file has float16 tensors.

    Raises:
        InputError: see `read_proto`.
    """
    model = read_proto(file).graph
    types = [value.type.tensor_type.elem_type for value in (*model.value_info, *model.output)]
    return TensorProto.FLOAT16 in (*types, *(weight.data_type for weight in model.initializer))


def is_half_qdq(model: Path | bytes) -> bool:
    """Return whether a graph has DequantizeLinear nodes that return float16, as in graphs for GPUs (graph/fp16.py).

    Raises:
        InputError: see `read_proto`.
    """
    found = read_proto(model).graph
    halves = {value.name for value in found.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    return any(node.op_type == "DequantizeLinear" and node.output[0] in halves for node in found.node)


def read_listed(path: Path, digests: Mapping[str, str]) -> bytes:
    """Read a graph of a bundle, and its separate weights file if there is one. Check the SHA-256 of each file.

    Each file is read once, so the returned bytes are those whose digest was checked. A weights file is memory-mapped,
    not copied: replacing the file has no effect on a graph in use, but overwriting its bytes changes that graph.

    Args:
        path: the graph file.
        digests: file name -> SHA-256, for each file of the graph's folder that the bundle lists.

    Returns:
        The graph as an ONNX message; a `Message` if its weights are in a separate file.

    Raises:
        InputError: a file is missing or differs from its digest, or the bundle does not list the weights file.
    """
    data = read_checked(path, digests[path.name])
    if b"location" not in data:  # without this key, no weight is external, and parsing is not needed
        return data
    model, opened, weights = read_proto(data), dict[str, Array](), dict[str, Array]()
    for tensor in _outside(model):
        name, start, length = _place(tensor)
        if name not in digests:
            raise InputError(
                f"{path}: its weights are in {name}, which the bundle does not list. Get a complete copy of the bundle."
            )
        if name not in opened:
            opened[name] = _mapped(path.parent / name, digests[name])
        weights[tensor.name] = _part(opened[name][start:], length, tensor, path)
    return _message(model, weights) if opened else data


def _mapped(path: Path, sha256: str) -> Array:
    """Check the digest of a file, and return its bytes as a read-only memory map, uint8 [size].

    If an open session already maps the unchanged file, that map is returned, because hashing 2 GB takes seconds.
    """
    with open_listed(path) as file:
        now = os.fstat(file.fileno())
        key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns, sha256)
        if (found := _MAPS.get(key)) is None:
            check_digest(path, sha256_open(file), sha256)
            _MAPS[key] = found = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        return found


def _outside(model: onnx.ModelProto) -> list[TensorProto]:
    """Return the external weights of a graph: those that are stored outside the graph file."""
    return [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]


def _place(tensor: TensorProto) -> tuple[str, int, int | None]:
    """Return where an external weight is: file name, offset and length in bytes (None: to the end of the file)."""
    found = {entry.key: entry.value for entry in tensor.external_data}
    length = int(found["length"]) if "length" in found else None
    return found["location"], int(found.get("offset", 0)), length


def _part(data: Array, length: int | None, tensor: TensorProto, path: Path) -> Array:
    """Return an external weight as an array of its own type and shape, from the bytes of its file.

    `data` has the bytes from the weight's offset to the end of the file. `length` is the size of the weight in bytes;
    None means all of `data`.
    """
    try:
        return data[:length].view(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))
    except ValueError:
        raise InputError(
            f"{path}: the bytes of the weight {tensor.name} do not match its type and shape. Build the graph again."
        ) from None


def _message(model: onnx.ModelProto, weights: dict[str, Array]) -> Message:
    """Return a graph and its weights as one message. If this exceeds MAX_BYTES, `Message.weights` has the weights."""
    fit = model.ByteSize() + sum(array.nbytes for array in weights.values()) <= MAX_BYTES
    for tensor in _outside(model):
        del tensor.external_data[:]
        array = weights[tensor.name]
        if fit:
            tensor.ClearField("data_location")
            tensor.raw_data = weights.pop(tensor.name).tobytes()
        else:
            for key, value in {"location": WEIGHTS, "offset": 0, "length": array.nbytes}.items():
                tensor.external_data.add(key=key, value=str(value))
    made = Message(model.SerializeToString())
    made.weights = weights
    return made


def data_file(path: Path) -> Path:
    """Return the path of the separate weights file of a graph that exceeds MAX_BYTES."""
    return path.with_name(f"{path.name}.data")


def files_of(path: Path) -> list[Path]:
    """Return the files of a graph: the graph file, then the files of its external weights.

    Raises:
        InputError: the graph file is missing or not an ONNX graph, or a weights file fails `check_outside`.
    """
    places = [_place(tensor) for tensor in _outside(read_proto(path))]
    for name, start, length in places:
        check_outside(path, name, start, length or 0)
    return [path, *(path.parent / name for name in dict.fromkeys(name for name, *_ in places))]


def check_outside(path: Path, name: str, start: int, length: int) -> None:
    """Check that the file of an external weight is in the graph's folder and long enough.

    Args:
        path: the graph file.
        name: path of the weights file, relative to the graph's folder.
        start: offset of the weight in its file, bytes.
        length: size of the weight, bytes.

    Raises:
        InputError: the weights file is missing or too short, or it is outside the graph's folder.
    """
    place = Path(name)
    file = path.parent / place
    if place.is_absolute() or ".." in place.parts:
        raise InputError(
            f"{path}: its weights are in {place}, outside the graph's folder. "
            "Export the graph and its weights to one folder."
        )
    if not file.is_file():
        raise InputError(
            f"{path}: its weights are in {place}, which is missing. Copy both files, or build the graph again."
        )
    if file.stat().st_size < start + length:
        raise InputError(f"{path}: its weights file {place} is too short. Copy it again, or build the graph again.")
