"""A typed graph is float16 where it should be, float32 where it must be, and near the original."""

import onnx
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.errors import InputError
from toolchain.graph.half import to_half
from toolchain.runtimes import open_runtime


@pytest.fixture(scope="module")
def typed(exported):
    model = graph.load(exported["distilbert"])
    to_half(model)
    return model


def types(model, *op_types):
    return {node.outputs[0].dtype for node in graph.nodes(model, *op_types)}


def test_products_are_float16_and_sums_of_squares_float32(typed):
    assert types(typed, "MatMul") == {ir.DataType.FLOAT16}
    assert types(typed, "LayerNormalization", "Softmax", "Gemm") == {ir.DataType.FLOAT}


def test_the_mask_is_added_in_float32(typed):
    assert {node.inputs[0].producer().outputs[0].dtype for node in graph.nodes(typed, "Softmax")} == {ir.DataType.FLOAT}


def test_logits_and_inputs_keep_their_types(typed):
    assert [value.dtype for value in typed.graph.inputs] == [ir.DataType.INT32] * 2
    assert [value.dtype for value in typed.graph.outputs] == [ir.DataType.FLOAT]


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_every_node_is_typed_consistently(exported, probe, tmp_path, kind):
    model = graph.load(exported[kind])
    to_half(model)
    graph.save(model, tmp_path / "half.onnx")
    onnx.checker.check_model(tmp_path / "half.onnx", full_check=True)
    batch = probe(kind)
    with open_runtime("ort", exported[kind]) as full, open_runtime("ort", tmp_path / "half.onnx") as half:
        expected = full(batch)
        assert abs(half(batch) - expected).max() < 0.02 * max(1, abs(expected).max())


def test_a_weight_beyond_float16_is_refused(exported):
    model = graph.load(exported["distilbert"])
    weight = graph.linear_layers(model)[0].inputs[1]
    weight.const_value = ir.tensor(graph.constant(weight) * 1e6 + 1e6)
    with pytest.raises(InputError, match="beyond float16"):
        to_half(model)
