"""Checks whether TensorRT's parser accepts the operators of a graph, by the table in operators.toml.

The parser itself runs only on machines with a GPU; this check runs on any machine. An operator that the parser accepts
may still be slow, or fail later in the builder.
"""

import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir as ir

from toolchain.graph import constant

TABLE = Path(__file__).with_name("operators.toml")

# Domain of nodes that are TensorRT plugins. TensorRT finds a plugin by its type, but onnx.checker needs a domain.
PLUGINS = "trt.plugins"


def has_table(major: int) -> bool:
    """Return whether operators.toml covers a major version of TensorRT. If not, only the parser can check a graph."""
    return str(major) in _table()["tables"]


def check_operators(model: ir.Model, *, major: int) -> list[str]:
    """Return the reasons why TensorRT's parser of this major version would refuse the graph; an empty list if none.

    Each reason begins with the name of the node or with the opset. Tensors without a type in the graph are not checked.
    """
    table = _table()
    known = _operators(major)
    faults = list(_opset_faults(model, table["tables"][str(major)]["opsets"], major))
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain == PLUGINS:
            continue
        if node.domain not in ("", "ai.onnx") or node.op_type not in known:
            faults.append(f"{_name(node)}: {_operator(node)} is not in the table of TensorRT {major}'s operators")
        else:
            faults += [f"{_name(node)}: {node.op_type} {fault}" for fault in _node_faults(node, known[node.op_type])]
    return faults


@functools.cache
def _table() -> dict[str, Any]:  # Any, because the tables in the file have different shapes
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


@functools.cache
def _operators(major: int) -> dict[str, frozenset[str]]:
    """Return operator -> names of the tensor types that TensorRT's parser accepts for it in this major version."""
    table = _table()
    types = {name: frozenset(members) for name, members in table["types"].items()}
    found = {operator: types[name] for name, operators in table["operators"].items() for operator in operators}
    later = {operator: entry for operator, entry in table["since"].items() if major >= entry["major"]}
    return found | {operator: types[entry["types"]] for operator, entry in later.items()}


def _opset_faults(model: ir.Model, opsets: tuple[int, int], major: int) -> Iterator[str]:
    lowest, highest = opsets
    opset = model.graph.opset_imports.get("")
    if opset is not None and not lowest <= opset <= highest:
        yield f"opset {opset}: TensorRT {major} accepts opsets {lowest} to {highest}"


def _node_faults(node: ir.Node, types: frozenset[str]) -> Iterator[str]:
    table = _table()
    for dtype in dict.fromkeys(value.dtype for value in _data(node) if value is not None and value.dtype is not None):
        if dtype.name not in types:
            yield f"of {dtype.name}, but TensorRT accepts only {', '.join(sorted(types))}"
    if node.op_type in table["constant_inputs"]:
        value = _input(node, table["constant_inputs"][node.op_type])
        if value is not None and constant(value) is None:
            yield f"reads {value.name}, which must be a constant"
    if node.op_type in table["zero_inputs"]:
        value = _input(node, table["zero_inputs"][node.op_type])
        array = constant(value)
        if value is not None and (array is None or array.any()):
            yield f"reads {value.name}, which must be zero"
    if node.op_type in table["one_output"]["operators"] and any(value.uses() for value in node.outputs[1:]):
        yield "has more than one output in use, but TensorRT computes only the first"


def _data(node: ir.Node) -> list[ir.Value | None]:
    """Return the inputs and outputs of a node whose types the table restricts."""
    places = _table()["data"].get(node.op_type, {"inputs": [0], "outputs": []})
    return [*(_input(node, index) for index in places["inputs"]), *(node.outputs[index] for index in places["outputs"])]


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _operator(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _name(node: ir.Node) -> str:
    return str(node.name or node.outputs[0].name)
