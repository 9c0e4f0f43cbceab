"""TensorRT's parser takes every operator of our graphs, and each operator that it does not take is reported."""

import tomllib

import numpy as np
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.graph.fp16 import to_half
from toolchain.graph.operators import TABLE, check_operators
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import CPU, TENSORRT, quantize

KINDS = ["distilbert", "bert", "roberta"]
MAJORS = [10, 11]


@pytest.fixture(scope="module")
def made(exported, tokens_of):
    """Return the graph of an architecture in a precision."""
    ranges = {}

    def make(kind, precision):
        model = graph.load(exported[kind])
        if precision in ("int8", "cpu"):
            if kind not in ranges:
                ranges[kind] = calibrate(graph.load(exported[kind]), tokens_of(kind, 20), method="minmax")
            quantize(model, ranges[kind], TENSORRT if precision == "int8" else CPU)
        if precision in ("half", "int8"):
            to_half(model)
        return model

    return make


def value(name, dtype, shape=(2, 3)):
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))


def model_of(node, *inputs, opset=18):
    return ir.Model(ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": opset}), ir_version=9)


def fixed(name, array):
    tensor = ir.tensor(np.asarray(array), name=name)
    return ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("precision", ["full", "half", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_our_graphs_pass(made, kind, precision, major):
    assert check_operators(made(kind, precision), major=major) == []


def test_the_graph_for_a_cpu_is_refused(made):
    faults = check_operators(made("bert", "cpu"), major=10)
    assert any("DequantizeLinear of UINT8, but TensorRT accepts only" in fault for fault in faults)
    assert any("zero_point, which must be zero" in fault for fault in faults)


@pytest.mark.parametrize("operator", ["Unique", "Bernoulli", "DynamicQuantizeLinear", "MatMulInteger"])
def test_an_operator_that_is_not_in_the_table_is_reported(operator):
    x = value("x", ir.DataType.FLOAT)
    node = ir.node(operator, [x], name="this one")
    expected = f"this one: {operator} is not in the table of TensorRT 10's operators"
    assert check_operators(model_of(node, x), major=10) == [expected]


def test_a_float64_tensor_is_reported():
    x = value("x", ir.DataType.DOUBLE)
    node = ir.node("Relu", [x], name="this one")
    fault = "this one: Relu of DOUBLE, but TensorRT accepts only BFLOAT16, FLOAT, FLOAT16, INT32, INT64"
    assert check_operators(model_of(node, x), major=11) == [fault]


def test_a_cast_to_float64_is_reported():
    x = value("x", ir.DataType.FLOAT)
    output = value("y", ir.DataType.DOUBLE)
    node = ir.node("Cast", [x], {"to": int(ir.DataType.DOUBLE)}, outputs=[output], name="this one")
    assert "this one: Cast of DOUBLE" in check_operators(model_of(node, x), major=10)[0]


def test_a_node_inside_a_branch_is_checked():
    x, condition = value("x", ir.DataType.FLOAT), value("c", ir.DataType.BOOL, ())
    inner = ir.node("Unique", [x], name="inner")
    branch = ir.Graph([], inner.outputs, nodes=[inner])
    node = ir.node("If", [condition], {"then_branch": branch, "else_branch": ir.Graph([], [], nodes=[])}, name="outer")
    faults = check_operators(model_of(node, x, condition), major=10)
    assert [fault.split(":")[0] for fault in faults] == ["outer", "inner"]


def test_swish_is_taken_from_11_on():
    x = value("x", ir.DataType.FLOAT16)
    model = model_of(ir.node("Swish", [x], name="swish"), x, opset=24)
    assert check_operators(model, major=11) == []
    assert check_operators(model, major=10) == ["swish: Swish is not in the table of TensorRT 10's operators"]


@pytest.mark.parametrize(("opset", "major"), [(25, 10), (26, 11), (8, 11)])
def test_an_opset_out_of_range_is_reported(opset, major):
    x = value("x", ir.DataType.FLOAT)
    faults = check_operators(model_of(ir.node("Relu", [x]), x, opset=opset), major=major)
    assert [fault.split(":")[0] for fault in faults] == [f"opset {opset}"]


def test_axes_must_be_a_constant():
    for axes, expected in (
        (value("axes", ir.DataType.INT64, (1,)), ["mean: ReduceMean reads axes, which must be a constant"]),
        (fixed("axes", np.array([1])), []),
    ):
        x = value("x", ir.DataType.FLOAT)
        node = ir.node("ReduceMean", [x, axes], name="mean")
        assert check_operators(model_of(node, x), major=10) == expected


def test_a_second_output_of_a_norm_is_reported():
    x, scale = value("x", ir.DataType.FLOAT), fixed("scale", np.ones(3, np.float32))
    node = ir.node("LayerNormalization", [x, scale], num_outputs=2, name="norm")
    model = model_of(node, x)
    assert check_operators(model, major=10) == []  # without a reader
    model.graph.append(ir.node("Relu", [node.outputs[1]]))
    (fault,) = check_operators(model, major=10)
    assert fault == "norm: LayerNormalization has more than one output in use, but TensorRT computes only the first"


def test_plugins_are_ignored_and_other_domains_are_not():
    for domain, faults in (("trt.plugins", 0), ("com.microsoft", 1)):
        x = value("x", ir.DataType.FLOAT)
        node = ir.node("CustomQKVToContextPluginDynamic", [x], domain=domain, name="attention")
        assert len(check_operators(model_of(node, x), major=10)) == faults


def test_the_table_states_its_source():
    table = tomllib.loads(TABLE.read_text())
    for major in MAJORS:
        entry = table["tables"][str(major)]
        assert {"version", "date", "opsets", "source"} == set(entry)
    listed = [name for names in table["operators"].values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(table["operators"]) <= set(table["types"])
    for part in ("data", "constant_inputs", "zero_inputs"):
        assert set(table[part]) <= set(listed)
    for types in table["types"].values():
        assert set(types) <= set(ir.DataType.__members__)
