"""The graph for TensorRT 8.6 has its operators and types, and the logits of the graph that it was made from."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.graph.first_token import first_token
from toolchain.graph.gemms import linear_layers
from toolchain.graph.trt8 import NORM_STEPS, float_nodes, for_trt8
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.runtimes import open_runtime

KINDS = ["distilbert", "bert", "roberta"]


def logits(model, batch):
    with open_runtime("ort", graph.serialised(model)) as infer:
        return infer(batch)


@pytest.fixture(scope="module")
def prepared(exported, tokens_of):
    """Return a graph that computes the first token in the last layer, in float or with Q/DQ nodes."""

    def make(kind, precision):
        model = graph.load(exported[kind])
        first_token(model)
        if precision == "int8":
            quantize(model, calibrate(graph.load(exported[kind]), tokens_of(kind, 20), method="minmax"), TENSORRT)
        return model

    return make


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_operators_types_and_logits(prepared, probe, kind, precision):
    model = prepared(kind, precision)
    expected = logits(model, probe(kind))
    assert for_trt8(model) == {"norms_in_steps": 5}
    onnx.checker.check_model(onnx.load_from_string(graph.serialised(model)), full_check=True)
    assert model.graph.opset_imports == {"": 17}
    types = {value.dtype for node in model.graph for value in node.outputs}
    assert not {ir.DataType.FLOAT16, ir.DataType.BFLOAT16} & types
    assert "LayerNormalization" not in {node.op_type for node in model.graph}
    # A value at the middle of two levels of INT8 may round to either.
    limit = 1e-5 if precision == "fp16" else 0.02
    np.testing.assert_allclose(logits(model, probe(kind)), expected, atol=limit * np.abs(expected).max())


def test_a_norm_is_written_by_its_formula(prepared):
    model = prepared("bert", "int8")
    norms = [str(node.name) for node in graph.nodes(model, "LayerNormalization")]
    for_trt8(model)
    for norm in norms:
        steps = [node.op_type for node in model.graph if str(node.name).startswith(f"{norm}.")]
        formula = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"]
        assert [kind for kind in steps if "Linear" not in kind and kind != "Gather"] == formula


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_norms_and_what_float16_does_not_hold_stay_in_float32(prepared, exported, precision):
    model = prepared("bert", precision)
    norms = for_trt8(model)["norms_in_steps"]
    kept = float_nodes(model, [])
    assert all(sum(name.endswith(step) for name in kept) == norms for step in NORM_STEPS)
    assert len(kept) == norms * len(NORM_STEPS)
    gemm = str(linear_layers(graph.load(exported["bert"]))[5].name)
    more = float_nodes(model, [f"{gemm}.output"])
    (bias,) = more.keys() - kept - {gemm}
    # A GEMM of integers stays one, and its output is in float32.
    assert (more[gemm], more[bias]) == (precision == "fp16", True)
