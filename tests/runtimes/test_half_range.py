"""Tensors beyond float16 are found, and the nodes around them stay in float32, so that no logit is NaN in halves."""

import re

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from toolchain import graph
from toolchain.graph.fp16 import to_half
from toolchain.graph.gemms import float_gemms, linear_layers
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.runtimes.half_range import coarsest_in_halves, fault_in_halves, measure_range, rounding_errors
from toolchain.runtimes.ort import open_session


def large(file, factor=600, places=(".layer.0.intermediate.", ".layer.0.output.")):
    """Return an encoder whose first feed-forward block computes values of about 1e5 and more, or other GEMMs do."""
    model = graph.load(file)
    for node in linear_layers(model):
        if any(place in str(node.name) for place in places):
            weight = node.inputs[1]
            weight.const_value = ir.tensor(graph.constant(weight) * np.float32(factor), name=weight.name)
    return model


def typed(model, beyond):
    to_half(model, [one["tensor"] for one in beyond])
    return model


@pytest.fixture(scope="module")
def tokens(tokens_of):
    return tokens_of("bert", 32)


def run(model, batch, *, halves=True):
    return open_session(graph.serialised(model), halves=halves).run(None, batch)[0]


def test_magnitudes_are_those_of_onnx_runtime(exported, tokens, probe):
    model = graph.load(exported["bert"])
    found = measure_range(model, tokens)
    assert (found.beyond(), found.sums) == ([], {})
    norm = str(next(graph.nodes(model, "LayerNormalization")).outputs[0].name)
    rows = [tokens.batch(np.array([row])) for row in range(len(tokens))]
    session = open_session(graph.with_outputs(model, [norm]))
    assert found.largest[norm] == pytest.approx(max(np.abs(session.run(None, row)[0]).max() for row in rows), rel=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_values_of_1e5_stay_in_float32_and_the_graph_is_right_in_halves(exported, tokens, probe, precision):
    batch, made = probe("bert"), {}
    expected = run(large(exported["bert"]), batch, halves=False)
    for name in ("blind", "ranged"):
        model = large(exported["bert"])
        if precision == "int8":
            quantize(model, calibrate(large(exported["bert"]), tokens, method="minmax"), TENSORRT)
        beyond = measure_range(model, tokens).beyond()
        assert beyond[0]["amax"] > 1e5
        made[name] = typed(model, beyond if name == "ranged" else [])
    if precision == "fp16":  # ONNX Runtime computes it in float32
        assert np.isfinite(run(made["blind"], batch, halves=False)).all()
    assert np.isnan(run(made["blind"], batch)).all()
    found = run(made["ranged"], batch)
    evaluated = ReferenceEvaluator(ir.to_proto(made["ranged"])).run(None, batch)[0]
    tolerance = 0.01 if precision == "fp16" else 0.15
    for logits in (found, evaluated):
        assert np.sqrt(np.square(logits - expected).mean()) < tolerance * np.abs(expected).max()
    norms = [node.outputs[0].dtype for node in graph.nodes(made["ranged"], "LayerNormalization")]
    in_float = [index for index, dtype in enumerate(norms) if dtype == ir.DataType.FLOAT]
    assert in_float == [2]  # behind the embeddings, the attention of layer 0, and its feed-forward block


def test_a_tensor_that_is_not_finite_in_halves_is_named_with_its_value_where_logits_are_finite(exported, tokens, probe):
    model = large(exported["bert"], factor=2e4, places=(".layer.0.intermediate.",))
    weight = linear_layers(model)[5].inputs[1]
    weight.const_value = ir.tensor(graph.constant(weight) * np.float32(5e-4), name=weight.name)
    quantize(model, calibrate(model.clone(), tokens, method="minmax"), TENSORRT)
    beyond = measure_range(model, tokens).beyond()
    blind, ranged = typed(model.clone(), []), typed(model, beyond)
    assert np.isfinite(run(blind, probe("bert"))).all()  # a Q node makes an integer of infinity and of NaN
    fault = fault_in_halves(blind, tokens)
    assert fault.startswith("node bert.encoder.layer.0.intermediate.dense computes values up to ")
    (amax,) = [one["amax"] for one in beyond if one["tensor"] == "bert.encoder.layer.0.intermediate.dense.output"]
    named = re.search(r"up to (\S+), and float16 holds up to 65,504", fault)
    assert float(named[1]) == pytest.approx(amax, rel=0.02)  # the scales of the typed graph are rounded
    assert fault_in_halves(ranged, tokens) is None


def test_what_float16_rounds_worst_is_named(exported, tokens):
    model = large(exported["bert"], factor=1e-7, places=(".layer.1.intermediate.",))
    to_half(model)
    errors = rounding_errors(model, tokens)
    assert np.median(list(errors.values())) == pytest.approx(2.0**-12, rel=0.5)
    assert errors["bert.encoder.layer.1.intermediate.dense.output"] > 0.1
    worst = max(errors, key=errors.__getitem__)
    assert coarsest_in_halves(model, tokens) == (
        f"rounding to float16 changes the tensor {worst} most, by {errors[worst]:.2%}"
    )


def test_values_beyond_float16_stay_in_float32_where_they_are_only_moved(exported, tokens, probe):
    values = {"factor": 3e5, "places": (".layer.0.attention.self.value",)}
    expected = run(large(exported["bert"], **values), probe("bert"), halves=False)
    model = large(exported["bert"], **values)
    beyond = measure_range(model, tokens).beyond()
    assert beyond[0]["amax"] > 1e5
    found = run(typed(model, beyond), probe("bert"))
    assert np.sqrt(np.square(found - expected).mean()) < 0.01 * np.abs(expected).max()


def test_an_int8_gemm_beyond_float16_still_reads_integers(exported, tokens):
    model = large(exported["bert"])
    quantize(model, calibrate(large(exported["bert"]), tokens, method="minmax"), TENSORRT)
    typed(model, measure_range(model, tokens).beyond())
    gemms = linear_layers(graph.load(exported["bert"]))
    by_name = {str(node.name): node for node in graph.nodes(model, "MatMul")}
    in_float = [name for name, node in by_name.items() if node.outputs[0].dtype == ir.DataType.FLOAT]
    assert 0 < len(in_float) < len(gemms)
    assert float_gemms(model) == in_float
    for name in in_float:
        assert {value.producer().op_type for value in by_name[name].inputs} == {"DequantizeLinear"}


def test_the_integer_sums_of_a_gemm_are_those_of_numpy(exported, tokens):
    model = graph.load(exported["bert"])
    quantize(model, calibrate(graph.load(exported["bert"]), tokens, method="minmax"), TENSORRT)
    node = next(node for node in graph.nodes(model, "MatMul") if ".layer.1.output." in str(node.name))
    left, right = (value.producer().inputs[0] for value in node.inputs)
    found = measure_range(model, tokens).sums[str(node.name)]
    session = open_session(graph.with_outputs(model, [str(left.name)]))
    rows = [session.run(None, tokens.batch(np.array([row])))[0] for row in range(len(tokens))]
    sums = [np.abs(row.astype(np.int32) @ graph.constant(right).astype(np.int32)).max() for row in rows]
    assert found == pytest.approx(max(sums), rel=0.01)  # the padded batch may reach a little further
