"""Q/DQ graphs: types and places of the nodes, scales against numpy and calibration.json, logits near FP32."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toolchain import graph
from toolchain.errors import InputError, UsageError
from toolchain.graph.first_token import first_token
from toolchain.graph.gemms import find_gemms
from toolchain.graph.integer import integer_products
from toolchain.graph.smooth import exponents, smooth
from toolchain.int8.calibrate import calibrate, channel_amax
from toolchain.int8.coverage import integer_coverage
from toolchain.int8.quantize import CPU, TENSORRT, quantize, quantize_weight
from toolchain.runtimes import open_runtime

KINDS = ["distilbert", "bert", "roberta"]


@pytest.fixture(scope="module")
def quantized(exported, tokens_of, tmp_path_factory):
    made = {}
    for kind in KINDS:
        ranges = calibrate(graph.load(exported[kind]), tokens_of(kind, 60), method="minmax")
        for target in (TENSORRT, CPU):
            made[kind, target.name] = tmp_path_factory.mktemp("q") / f"{kind}.{target.name}.onnx"
            model = graph.load(exported[kind])
            quantize(model, ranges, target)
            if target is CPU:
                integer_products(model)
            graph.save(model, made[kind, target.name])
    return made


@given(arrays(np.float32, (6, 4), elements=st.floats(-100, 100, width=32)))
def test_weights_round_to_the_nearest_of_255_levels(weight):
    integers, scale = quantize_weight(weight)
    assert integers.dtype == np.int8
    assert np.abs(integers).max() <= 127
    assert (np.abs(integers * scale - weight) <= scale / 2 + 1e-5).all()


def test_gemms_for_tensorrt_read_int8_with_zero_point_0(quantized):
    model = graph.load(quantized["distilbert", "tensorrt"])
    for node in graph.nodes(model, "MatMul"):
        for value in node.inputs:
            source = value.producer()
            assert source.op_type == "DequantizeLinear"
            assert source.inputs[0].dtype == ir.DataType.INT8 or source.inputs[2].dtype == ir.DataType.INT8
            assert not graph.constant(source.inputs[2]).any()


def test_probabilities_have_the_fixed_scale(quantized):
    model = graph.load(quantized["distilbert", "tensorrt"])
    readers = [next(iter(node.outputs[0].uses())).node for node in graph.nodes(model, "Softmax")]
    assert {node.op_type for node in readers} == {"QuantizeLinear"}
    assert {graph.constant(node.inputs[1]).item() for node in readers} == {float(np.float32(1 / 127))}


def test_weights_have_a_scale_for_each_output_channel(quantized):
    model = graph.load(quantized["bert", "tensorrt"])
    for node in graph.nodes(model, "MatMul"):
        source = node.inputs[1].producer()
        if graph.constant(source.inputs[0]) is not None:
            assert source.attributes["axis"].as_int() == 1
            assert graph.constant(source.inputs[1]).shape == (graph.constant(source.inputs[0]).shape[1],)


def test_layer_norms_embeddings_head_softmax_and_additions_stay_float(quantized):
    model = graph.load(quantized["distilbert", "tensorrt"])
    for node in graph.nodes(model, "LayerNormalization", "Gather", "Gemm", "Softmax", "Add"):
        assert "DequantizeLinear" not in {value.producer().op_type for value in node.inputs if value.producer()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_cpu_graph_runs_in_integers(quantized, kind):
    assert integer_coverage(quantized[kind, "cpu"]) == {"integer": 16, "float": 0}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["tensorrt", "cpu"])
def test_logits_stay_near_fp32(quantized, exported, probe, kind, target):
    with open_runtime("ort", exported[kind]) as full, open_runtime("ort", quantized[kind, target]) as small:
        expected = full(probe(kind))
        assert np.abs(small(probe(kind)) - expected).max() < 0.15 * np.abs(expected).max()


def test_a_graph_of_another_model_is_refused(exported):
    with pytest.raises(InputError, match=r"no range for .*LayerNorm\.output"):
        quantize(graph.load(exported["distilbert"]), {}, TENSORRT)


@pytest.mark.parametrize("kind", KINDS)
def test_only_kept_gemms_stay_float(exported, tokens_of, kind):
    model = graph.load(exported[kind])
    ranges = calibrate(graph.load(exported[kind]), tokens_of(kind, 20), method="mse")
    names = [node.name for node in graph.nodes(model, "MatMul")]
    keep = find_gemms(model, "*.product2, *layer.0*q*")
    done = quantize(model, ranges, TENSORRT, keep=keep)
    assert (len(keep), done["linear"], done["attention"], done["kept"]) == (3, 11, 2, sorted(keep))
    for node in graph.nodes(model, "MatMul"):
        from_integers = {value.producer().op_type == "DequantizeLinear" for value in node.inputs if value.producer()}
        assert from_integers <= {node.name not in keep}
    assert [node.name for node in graph.nodes(model, "MatMul")] == names


def test_a_pattern_that_matches_nothing_is_refused(exported):
    with pytest.raises(UsageError, match=r"--keep \*\.lin9: no GEMM matches"):
        find_gemms(graph.load(exported["bert"]), "*.lin9")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [None, 0.5])
def test_residual_additions_read_the_int8_of_the_gemms(exported, tokens_of, probe, kind, alpha):
    """The embeddings' LayerNorm has one reader of the kind in each layer, as has the LayerNorm inside a layer."""
    model, tokens = graph.load(exported[kind]), tokens_of(kind, 20)
    if alpha is not None:
        smooth(model, exponents(model, channel_amax(model, tokens), alpha))
    ranges = calibrate(model, tokens, method="minmax")
    first_token(model)
    assert quantize(model, ranges, TENSORRT, residual=True)["residual"] == 4
    added = [node.inputs[0].producer() for node in graph.nodes(model, "LayerNormalization")][1:]
    for add in added:
        sources = {value.producer() for value in add.inputs if value.producer()}
        sources |= {node.inputs[0].producer() for node in sources if node.op_type == "Mul"}
        (pair,) = (node.inputs[0].producer() for node in sources if node.op_type == "DequantizeLinear")
        assert pair.op_type == "QuantizeLinear"
        assert sum(use.node.op_type == "MatMul" for node in sources for use in node.outputs[0].uses()) > 0
    with open_runtime("ort", exported[kind]) as full, open_runtime("ort", graph.serialised(model)) as small:
        expected = full(probe(kind))
        assert np.abs(small(probe(kind)) - expected).max() < 0.2 * np.abs(expected).max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_token_has_the_scale_of_its_tensor(exported, tokens_of, probe, kind):
    ranges = calibrate(graph.load(exported[kind]), tokens_of(kind, 20), method="minmax")
    found = []
    for prepare in (lambda model: 0, first_token):
        model = graph.load(exported[kind])
        prepare(model)
        assert quantize(model, ranges, TENSORRT)["linear"] == 12
        with open_runtime("ort", graph.serialised(model)) as infer:
            found.append(infer(probe(kind)))
    # A value at the middle of two levels may round to either, because sums are added up in another order.
    np.testing.assert_allclose(found[1], found[0], atol=0.02 * np.abs(found[0]).max())
