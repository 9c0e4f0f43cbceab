"""A converted graph is float16 or float32 as fp16.py states, and its logits are near the original's."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.graph import is_half_qdq
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import round_scales, to_half
from toolchain.graph.gemms import linear_layers
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.runtimes import open_runtime


@pytest.fixture(scope="module")
def typed(exported):
    model = graph.load(exported["distilbert"])
    to_half(model)
    return model


def types(model, *op_types):
    return {node.outputs[0].dtype for node in graph.nodes(model, *op_types)}


def test_gemms_and_layer_norms_are_float16_and_softmax_float32(typed):
    assert types(typed, "MatMul", "Gemm", "LayerNormalization") == {ir.DataType.FLOAT16}
    assert types(typed, "Softmax") == {ir.DataType.FLOAT}


def test_layer_norms_compute_statistics_in_float32(typed):
    norms = graph.nodes(typed, "LayerNormalization")
    assert {node.attributes["stash_type"].as_int() for node in norms} == {ir.DataType.FLOAT}


def test_the_mask_is_added_in_float32(typed):
    assert {node.inputs[0].producer().outputs[0].dtype for node in graph.nodes(typed, "Softmax")} == {ir.DataType.FLOAT}


def test_logits_and_inputs_keep_their_types(typed):
    assert [value.dtype for value in typed.graph.inputs] == [ir.DataType.INT32] * 2
    assert [(value.name, value.dtype) for value in typed.graph.outputs] == [("logits", ir.DataType.FLOAT)]


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
@pytest.mark.parametrize("prepare", [lambda model: None, first_token], ids=["all tokens", "first token"])
def test_every_node_is_typed_consistently(exported, probe, tmp_path, kind, prepare):
    model = graph.load(exported[kind])
    prepare(model)
    to_half(model)
    graph.save(model, tmp_path / "half.onnx")
    onnx.checker.check_model(tmp_path / "half.onnx", full_check=True)
    batch = probe(kind)
    with open_runtime("ort", exported[kind]) as full, open_runtime("ort", tmp_path / "half.onnx") as half:
        expected = full(batch)
        assert abs(half(batch) - expected).max() < 0.02 * max(1, abs(expected).max())


@pytest.mark.parametrize("factor", [1e6, -1e6])
def test_a_gemm_with_a_weight_beyond_float16_stays_in_float32(exported, factor):
    model = graph.load(exported["distilbert"])
    weight = linear_layers(model)[0].inputs[1]
    weight.const_value = ir.tensor((np.abs(graph.constant(weight)) + 1) * factor)
    name = weight.name
    to_half(model)
    first, *others = linear_layers(model)
    assert (first.inputs[1].name, first.outputs[0].dtype) == (name, ir.DataType.FLOAT)
    assert {node.outputs[0].dtype for node in others} == {ir.DataType.FLOAT16}


@pytest.fixture(scope="module")
def quantized(exported, tokens_of, tmp_path_factory):
    """An INT8 graph, before and after its conversion to float16."""
    tokens = tokens_of("bert", 32)
    ranges = calibrate(graph.load(exported["bert"]), tokens, method="minmax")
    made = {}
    for name in ("full", "half"):
        model = graph.load(exported["bert"])
        quantize(model, ranges, TENSORRT)
        if name == "half":
            to_half(model)
        made[name] = tmp_path_factory.mktemp(name) / "model.onnx"
        graph.save(model, made[name])
    return made


def test_a_q_node_takes_either_type_and_a_dq_node_gives_float16(quantized):
    model = graph.load(quantized["half"])
    onnx.checker.check_model(onnx.load(quantized["half"]), full_check=True)
    assert model.graph.opset_imports[""] == 19
    assert types(model, "DequantizeLinear") == {ir.DataType.FLOAT16}
    for node in graph.nodes(model, "QuantizeLinear"):
        source, scale = node.inputs[0], node.inputs[1]
        assert source.dtype == scale.dtype
        (reader,) = (use.node for use in node.outputs[0].uses())
        assert graph.constant(reader.inputs[1]).astype("float32") == graph.constant(scale).astype("float32")


def test_a_residual_reads_the_tensor_that_is_quantized(quantized):
    """A GPU then writes it once, in float16."""
    for norm in list(graph.nodes(graph.load(quantized["half"]), "LayerNormalization"))[:-1]:
        readers = {use.node.op_type for use in norm.outputs[0].uses()}
        assert readers == {"QuantizeLinear", "Add"}


def test_float16_around_int8_changes_logits_little_and_is_recognised(quantized, probe):
    found = {}
    for name, file in quantized.items():
        assert is_half_qdq(file) == (name == "half")
        with open_runtime("ort", file, device="cpu") as infer:
            found[name] = infer(probe("bert"))
    assert 0 < np.sqrt(((found["half"] - found["full"]) ** 2).mean()) < 0.05


def test_a_scale_below_float16_stays_above_zero(quantized):
    model = graph.load(quantized["full"])
    scale = next(graph.nodes(model, "DequantizeLinear")).inputs[1]
    scale.const_value = ir.tensor(np.full_like(graph.constant(scale), 1e-12), name=scale.name)
    assert round_scales(model) > 0
    assert (graph.constant(scale) == np.float32(2**-24)).all()
