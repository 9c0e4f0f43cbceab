"""Reads the inputs and outputs of an ONNX graph, with the names that Triton uses for their types."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from toolchain import graph
from toolchain.records.ship import TensorRecord

# Name of an element type in ONNX -> its name in Triton.
TYPES = {
    "BOOL": "TYPE_BOOL",
    "UINT8": "TYPE_UINT8",
    "INT8": "TYPE_INT8",
    "UINT16": "TYPE_UINT16",
    "INT16": "TYPE_INT16",
    "UINT32": "TYPE_UINT32",
    "INT32": "TYPE_INT32",
    "UINT64": "TYPE_UINT64",
    "INT64": "TYPE_INT64",
    "FLOAT16": "TYPE_FP16",
    "BFLOAT16": "TYPE_BF16",
    "FLOAT": "TYPE_FP32",
    "DOUBLE": "TYPE_FP64",
    "STRING": "TYPE_STRING",
}


@dataclass(frozen=True)
class Tensor:
    """An input or output: Triton's data type and all dimensions, with -1 for a dynamic dimension."""

    type: str
    dims: tuple[int, ...]


Tensors = dict[str, Tensor]


def signature(file: Path) -> tuple[Tensors, Tensors]:
    """Return the inputs and the outputs of an ONNX graph by name, in the graph's order.

    Raises:
        InputError: the file is not an ONNX graph.
    """
    model = graph.load(file)
    return _tensors(model.graph.inputs), _tensors(model.graph.outputs)


def computes_in_float16(file: Path) -> bool:
    """Return whether a graph has float16 weights.

    Raises:
        InputError: the file is not an ONNX graph.
    """
    values = graph.load(file).graph.initializers.values()
    return any(value.dtype == ir.DataType.FLOAT16 for value in values)


def to_json(tensors: Tensors) -> list[TensorRecord]:
    """Return tensors in the form in which records store them."""
    return [{"name": name, "data_type": one.type, "dims": list(one.dims)} for name, one in tensors.items()]


def from_json(records: list[TensorRecord]) -> Tensors:
    """Return the tensors that `to_json` has put into a record."""
    return {record["name"]: Tensor(record["data_type"], tuple(record["dims"])) for record in records}


def _tensors(values: Iterable[ir.Value]) -> Tensors:
    return {str(value.name): Tensor(_type(value), _dims(value)) for value in values}


def _type(value: ir.Value) -> str:
    return TYPES.get(value.dtype.name if value.dtype else "", "TYPE_INVALID")


def _dims(value: ir.Value) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in value.shape or ())
