"""The graphs for ONNX Runtime on a CPU: the same logits, and the kernels that were measured to be fast."""

from collections import Counter

import numpy as np
import pytest

from toolchain import graph
from toolchain.graph.cpu import for_cpu, separate_norms
from toolchain.graph.first_token import first_token
from toolchain.graph.gemms import attention_gemms
from toolchain.graph.integer import integer_products
from toolchain.int8.calibrate import calibrate
from toolchain.int8.coverage import optimised
from toolchain.int8.quantize import CPU, quantize
from toolchain.runtimes.ort import open_session

KINDS = ["distilbert", "bert", "roberta"]
LAYERS = 2  # as in tests/tiny.py


def run(model, batch):
    return open_session(graph.serialised(model)).run(["logits"], batch)[0]


@pytest.fixture(scope="module")
def quantized(exported, tokens_of):
    """Return a new Q/DQ graph of an architecture, with attention in float."""
    ranges = {kind: calibrate(graph.load(exported[kind]), tokens_of(kind, 60), method="minmax") for kind in KINDS}

    def make(kind):
        model = graph.load(exported[kind])
        quantize(model, ranges[kind], CPU, keep=[node.name for node in attention_gemms(model)])
        return model

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("run_pass", [first_token, separate_norms, for_cpu])
def test_float_passes_keep_the_logits_of_padded_rows(kind, run_pass, exported, random_batch, reference):
    model, batch = graph.load(exported[kind]), random_batch(kind, 6, 19)
    assert run_pass(model)
    assert (batch["attention_mask"] == 0).any()
    np.testing.assert_allclose(run(model, batch), reference(kind, batch), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_logits(kind, exported, tokens_of):
    model, tokens = graph.load(exported[kind]), tokens_of(kind, 8)
    for_cpu(model)
    alone = [run(model, tokens.batch(np.array([row]))) for row in range(8)]
    padded = run(model, tokens.batch(np.arange(8), length=40))
    np.testing.assert_allclose(np.concatenate(alone), padded, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_first_token_of_the_last_layer_is_computed(kind, exported, random_batch):
    model, batch = graph.load(exported[kind]), random_batch(kind, 3, 7)
    names = {node.name: str(node.outputs[0].name) for node in graph.nodes(model, "MatMul")}
    first_token(model)
    names = {name: output for name, output in names.items() if name in {node.name for node in model.graph}}
    shapes = [array.shape for array in open_session(graph.with_outputs(model, [*names.values()])).run(None, batch)]
    lengths = [shape[-2] for shape in shapes]
    per_layer = len(names) // LAYERS
    assert set(lengths[:-per_layer]) == {7}
    # Keys and values are computed for every token; the query, both attention GEMMs and three linear layers for one.
    assert Counter(lengths[-per_layer:]) == {7: 2, 1: 6}


def test_nothing_is_narrowed_if_the_head_reads_every_token(exported):
    model = graph.load(exported["distilbert"])
    choice = next(node for node in graph.nodes(model, "Gather") if node.inputs[0].producer() is not None)
    choice.replace_input_with(1, graph.add_initializer(model, "second", np.array(1)))
    assert first_token(model) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_integer_gemm_gives_the_result_of_its_qdq_nodes(kind, quantized, random_batch):
    model, batch = quantized(kind), random_batch(kind, 6, 19)
    expected = run(model, batch)
    assert integer_products(model) == 6 * LAYERS
    np.testing.assert_allclose(run(model, batch), expected, atol=1e-4 * np.abs(expected).max())
    assert not list(graph.nodes(model, "DequantizeLinear"))


def rms(x):
    return np.sqrt((x**2).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_the_int8_graph_stays_near_fp32(kind, quantized, random_batch, reference):
    model, batch = quantized(kind), random_batch(kind, 32, 19)
    expected = run(model, batch)
    assert for_cpu(model)["integer_products"] == 6 * LAYERS
    found = run(model, batch)
    noise = rms(expected - reference(kind, batch))
    # A value at the middle of two levels may round to either, so that single logits differ more.
    assert rms(found - expected) <= 0.1 * noise + 1e-5
    assert np.median(np.abs(found - expected)) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_gemms_of_other_types_stay_unchanged(kind, quantized):
    model = quantized(kind)
    for node in graph.nodes(model, "DequantizeLinear"):
        if graph.constant(node.inputs[0]) is not None:  # a weight, now with zero points
            zero = graph.constant(node.inputs[2])
            node.replace_input_with(2, graph.add_initializer(model, f"{node.name}.zero", zero + np.int8(1)))
    assert integer_products(model) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_runtime_chooses_the_fast_kernels(kind, quantized, tmp_path):
    """Its optimiser must neither fuse Add and LayerNorm, nor move the bias of a linear layer into GELU."""
    model = quantized(kind)
    for_cpu(model)
    graph.save(model, tmp_path / "model.onnx")
    found = Counter(node.op_type for node in optimised(tmp_path / "model.onnx").graph)
    assert (found["MatMulIntegerToFloat"], found["Gelu"]) == (6 * LAYERS, LAYERS)
    assert found["LayerNormalization"] == 1 + 2 * LAYERS
    assert not {"SkipLayerNormalization", "BiasGelu", "DequantizeLinear"} & set(found)
