"""One scale for all weights changes logits by rounding only, and keeps each channel's own scale."""

import numpy as np
import onnx
import pytest

from toolchain import graph
from toolchain.graph.common_scale import common_scale
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.int8.calibrate import calibrate
from toolchain.int8.coverage import constant_behind, cover
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.runtimes import open_runtime

KINDS = ["distilbert", "bert", "roberta"]


@pytest.fixture(scope="module")
def quantized(exported, tokens_of):
    ranges = {kind: calibrate(graph.load(exported[kind]), tokens_of(kind, 20), method="minmax") for kind in KINDS}

    def make(kind, keep=()):
        model = graph.load(exported[kind])
        first_token(model)
        quantize(model, ranges[kind], TENSORRT, keep=keep)
        return model

    return make


def logits(model, batch):
    with open_runtime("ort", graph.serialised(model)) as infer:
        return infer(batch)


def rms(x):
    return np.sqrt((x**2).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_logits_stay_the_same(quantized, probe, kind):
    model, batch = quantized(kind), probe(kind)
    expected = logits(model, batch)
    assert common_scale(model) == 12
    # A value at the middle of two levels may round to either, so that single logits differ more.
    assert rms(logits(model, batch) - expected) <= 0.01 * np.abs(expected).max()
    to_half(model)
    onnx.checker.check_model(onnx.load_from_string(graph.serialised(model)), full_check=True)
    assert rms(logits(model, batch) - expected) <= 0.03 * np.abs(expected).max()


def test_every_weight_has_the_same_scale_and_every_gemm_its_channels(quantized):
    model, scaled = quantized("bert"), quantized("bert")
    common_scale(scaled)
    readers = {node.name: node for node in graph.nodes(scaled, "MatMul")}
    found = set()
    for node in graph.nodes(model, "MatMul"):
        weight, new = node.inputs[1].producer(), readers[node.name].inputs[1].producer()
        if constant_behind(node.inputs[1]) is None:
            continue
        (mul,) = (use.node for use in readers[node.name].outputs[0].uses())
        scale, factor = graph.constant(new.inputs[1]), graph.constant(mul.inputs[1])
        np.testing.assert_array_equal(graph.constant(new.inputs[0]), graph.constant(weight.inputs[0]))
        np.testing.assert_array_equal(scale * factor, graph.constant(weight.inputs[1]))
        assert mul.outputs[0].name == node.outputs[0].name
        found.add(float(scale))
    (scale,) = found
    assert np.log2(scale) == round(np.log2(scale))
    assert [one.tensorrt for one in cover(scaled)] == [one.tensorrt for one in cover(model)]


def test_kept_gemms_and_float_graphs_are_left_alone(quantized, exported):
    model = quantized("distilbert")
    names = [str(node.name) for node in graph.nodes(model, "MatMul")]
    assert common_scale(quantized("distilbert", keep=[name for name in names if "lin1" in name])) == 10
    assert common_scale(graph.load(exported["distilbert"])) == 0
