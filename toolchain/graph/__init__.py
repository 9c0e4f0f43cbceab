"""ONNX graphs and the passes that change them, one pass a file.

A pass takes an `onnx_ir.Model`, changes it in place and returns the number of places that it changed. To add one,
write a module here with one function, and call it where it belongs: `clean.PASSES` for a pass that keeps every value.

This file has what those who run a graph need. The rest, in model.py, is imported when it is first used, because
onnx_ir imports SymPy, which takes a second.
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

# Key of a graph's metadata: rows must be padded on the right, as our tokenizers pad them.
RIGHT_PADDED = "toolchain.right_padded"

# The place of weights that a `Message` lacks; it is never opened.
WEIGHTS = "weights"


# The state of a file and its SHA-256 -> the file of weights that a session uses, uint8 [size].
_MAPS: "weakref.WeakValueDictionary[tuple[int | str, ...], Array]" = weakref.WeakValueDictionary()


def __getattr__(name: str) -> object:
    import importlib

    if name in __all__:
        return getattr(importlib.import_module("toolchain.graph.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Message(bytes):
    """A graph as an ONNX message; `weights` holds the weights that are not in it, by name."""

    weights: dict[str, Array]


def read_proto(path: Path | bytes) -> onnx.ModelProto:
    """Read an ONNX file or message, without the weights that are in a file of their own.

    Raises:
        InputError: the file is missing, or it is not an ONNX graph.
    """
    where = "" if isinstance(path, bytes) else f"{path}: "
    try:
        return onnx.load_model_from_string(path if isinstance(path, bytes) else path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{where}no such file. Give an ONNX graph.") from None
    except Exception as error:  # protobuf does not export the class of its DecodeError
        raise InputError(f"{where}not an ONNX graph ({type(error).__name__}). Build it again.") from error


def file_has_halves(file: Path) -> bool:
    """Return whether a graph has float16 tensors.

    Raises:
        InputError: see `read_proto`.
    """
    model = read_proto(file).graph
    types = [value.type.tensor_type.elem_type for value in (*model.value_info, *model.output)]
    return TensorProto.FLOAT16 in (*types, *(weight.data_type for weight in model.initializer))


def is_half_qdq(model: Path | bytes) -> bool:
    """Return whether a graph has Q/DQ nodes with float16 between the nodes, as fp16.py makes it for GPUs.

    Raises:
        InputError: see `read_proto`.
    """
    found = read_proto(model).graph
    halves = {value.name for value in found.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    return any(node.op_type == "DequantizeLinear" and node.output[0] in halves for node in found.node)


def read_listed(path: Path, digests: Mapping[str, str]) -> bytes:
    """Read a graph of a bundle, and the file of its weights if there is one, once each.

    The bytes that are returned are those whose digest was checked. A file of weights is mapped, and not copied: another
    file that is put in its place has no effect, but a change of its bytes has, as long as the graph is in use.

    Args:
        path: the graph.
        digests: name -> SHA-256 of each file in its folder that may be read.

    Returns:
        The graph as an ONNX message; a `Message` if its weights are in a file of their own.

    Raises:
        InputError: a file is missing or differs from its digest, or the weights are in a file without a digest.
    """
    data = read_checked(path, digests[path.name])
    if b"location" not in data:  # the key of each place outside the message, so it needs no parsing
        return data
    model, opened, weights = read_proto(data), dict[str, Array](), dict[str, Array]()
    for tensor in _outside(model):
        name, start, length = _place(tensor)
        if name not in digests:
            raise InputError(
                f"{path}: its weights are in {name}, which the bundle does not list. Get the bundle again."
            )
        if name not in opened:
            opened[name] = _mapped(path.parent / name, digests[name])
        weights[tensor.name] = _part(opened[name][start:], length, tensor, path)
    return _message(model, weights) if opened else data


def _mapped(path: Path, sha256: str) -> Array:
    """Return the bytes of a file as a read-only map, uint8 [size], after a check of its digest.

    A session that is still open may have the map of the unchanged file already, and a hash of 2 GB takes seconds.
    """
    with open_listed(path) as file:
        now = os.fstat(file.fileno())
        key = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns, sha256)
        if (found := _MAPS.get(key)) is None:
            check_digest(path, sha256_open(file), sha256)
            _MAPS[key] = found = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        return found


def _outside(model: onnx.ModelProto) -> list[TensorProto]:
    """Return the weights that ONNX calls external data: they are stored outside the graph file."""
    return [tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]


def _place(tensor: TensorProto) -> tuple[str, int, int | None]:
    """Return the file of a weight, where it begins there, and its length in bytes if the graph says it."""
    found = {entry.key: entry.value for entry in tensor.external_data}
    length = int(found["length"]) if "length" in found else None
    return found["location"], int(found.get("offset", 0)), length


def _part(data: Array, length: int | None, tensor: TensorProto, path: Path) -> Array:
    """Return a weight from the bytes of the file that it is in, which begin with it."""
    try:
        return data[:length].view(helper.tensor_dtype_to_np_dtype(tensor.data_type)).reshape(tuple(tensor.dims))
    except ValueError:
        raise InputError(f"{path}: its weight {tensor.name} does not fit its place. Build it again.") from None


def _message(model: onnx.ModelProto, weights: dict[str, Array]) -> Message:
    """Return a graph as a message that has the weights where they fit, and only their places where they do not."""
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
    """Return the file of the weights of a graph that is too large for one file."""
    return path.with_name(f"{path.name}.data")


def files_of(path: Path) -> list[Path]:
    """Return the files of a graph: its own, and those of weights that it names.

    Raises:
        InputError: a file is missing or too short, is outside the folder, or is not an ONNX graph.
    """
    places = [_place(tensor) for tensor in _outside(read_proto(path))]
    for name, start, length in places:
        check_outside(path, name, start, length or 0)
    return [path, *(path.parent / name for name in dict.fromkeys(name for name, *_ in places))]


def check_outside(path: Path, name: str, start: int, length: int) -> None:
    """Check the place of weights outside the file of a graph: a file, and where they begin and their length in bytes.

    Raises:
        InputError: the file is missing or too short, or it is outside the folder of the graph.
    """
    place = Path(name)
    file = path.parent / place
    if place.is_absolute() or ".." in place.parts:
        raise InputError(f"{path}: its weights are in {place}, outside its folder. Get the graph again from its maker.")
    if not file.is_file():
        raise InputError(f"{path}: its weights are in {place}, which is missing. Copy both files, or build it again.")
    if file.stat().st_size < start + length:
        raise InputError(f"{path}: its weights in {place} are cut off. Copy the file again, or build it again.")
