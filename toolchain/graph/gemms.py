"""The GEMMs of an encoder's float graph (ONNX MatMul nodes), and the activations that they read.

The quantizer (int8/quantize.py) puts Q/DQ nodes around these activations; calibration (int8/calibrate.py) measures
their ranges.
"""

import fnmatch

import onnx_ir as ir

from toolchain.errors import UsageError
from toolchain.graph import constant, nodes


def linear_layers(model: ir.Model) -> list[ir.Node]:
    """Return the MatMul nodes with a constant second input: linear layers that are applied to each token.

    The classification head reads one vector per row and is exported as Gemm, so it is not among them.
    """
    return [node for node in nodes(model, "MatMul") if constant(node.inputs[1]) is not None]


def attention_gemms(model: ir.Model) -> list[ir.Node]:
    """Return the MatMul nodes of two activations: Q times K, and probabilities times V."""
    return [node for node in nodes(model, "MatMul") if constant(node.inputs[1]) is None]


def float_gemms(model: ir.Model) -> list[str]:
    """Return the names of the GEMMs that compute in float32, in graph order."""
    return [str(node.name) for node in nodes(model, "MatMul", "Gemm") if node.outputs[0].dtype == ir.DataType.FLOAT]


def find_gemms(model: ir.Model, patterns: str | None) -> list[str]:
    """Return the names of the MatMul nodes that match `patterns`; an empty list if `patterns` is None.

    `patterns` is text with wildcards, separated by commas, such as `*.ffn.lin2`.

    Raises:
        UsageError: no node matches a pattern.
    """
    names = [str(node.name) for node in nodes(model, "MatMul")]
    found: list[str] = []
    for pattern in map(str.strip, patterns.split(",") if patterns else ()):
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise UsageError(
                f"--keep {pattern}: no GEMM matches. The first GEMM is {names[0]}; `toolchain explain` lists all."
            )
        found += matched
    return list(dict.fromkeys(found))


def activation_inputs(gemms: list[ir.Node]) -> list[tuple[ir.Value, int, list[ir.Node]]]:
    """Return (activation, position, readers) for each activation that the GEMMs read.

    `readers` are the GEMMs that have the activation as their input number `position`, 0 or 1. An activation that is
    read at both positions appears twice.
    """
    found: dict[tuple[ir.Value, int], list[ir.Node]] = {}
    for node in gemms:
        for position, value in enumerate(node.inputs):
            if value is not None and constant(value) is None:
                found.setdefault((value, position), []).append(node)
    return [(value, position, readers) for (value, position), readers in found.items()]


def is_probabilities(value: ir.Value) -> bool:
    """Return whether a Softmax computes the value, so that it is between 0 and 1 for any data."""
    node = value.producer()
    return node is not None and node.op_type == "Softmax"


def calibrated_tensors(model: ir.Model) -> list[str]:
    """Return the names of the tensors that need a calibration range, in graph order.

    These are the activations that GEMMs read, except attention probabilities, whose range is always 0 to 1.
    """
    found = (value for value, _, _ in activation_inputs(list(nodes(model, "MatMul"))) if not is_probabilities(value))
    return list(dict.fromkeys(str(value.name) for value in found))
