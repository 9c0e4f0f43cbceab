"""What NVIDIA's compiler makes of every graph is what the graph asks for; planted faults are found by their names."""

import re
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from tests.engine.matrix import compiled, emitted, typed
from toolchain import graph
from toolchain.engine.judge import judge
from toolchain.errors import InputError
from toolchain.graph import add_initializer, constant, fp16, nodes
from toolchain.graph.common_scale import common_scale

pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")

LAYER = "distilbert.transformer.layer.0.attention"


@pytest.mark.parametrize(
    ("kind", "precision", "sm"),
    [
        ("distilbert", "fp16", 75),
        ("distilbert", "int8", 75),
        ("distilbert", "int8", 86),
        ("distilbert", "int8", 89),
        ("distilbert", "int8", 120),
        ("bert", "int8", 75),
        ("roberta", "fp16", 86),
        ("roberta", "int8", 75),
    ],
)
def test_every_gemm_is_compiled_in_its_precision_and_attention_is_fused(exported, kind, precision, sm):
    model, asked = typed(exported[kind], precision)
    assert len(asked.integers) == {"fp16": 0, "int8": 2 * 8}[precision]
    assert len(asked.attentions) == 1  # the last layer computes the first token only
    assert judge(compiled(model, sm), asked) == []


def test_the_view_for_tensorrt_rtx_is_compiled_as_it_asks(exported):
    model, asked = typed(exported["bert"], "int8", after=common_scale)
    assert judge(compiled(model, 75), asked) == []


def unpaired(model: ir.Model) -> None:
    """Move the Q/DQ pair of the first layer's probabilities away."""
    softmax = next(nodes(model, "Softmax"))
    (quantized,) = [use.node for use in softmax.outputs[0].uses() if use.node.op_type == "QuantizeLinear"]
    (dequantized,) = [use.node for use in quantized.outputs[0].uses()]
    dequantized.outputs[0].replace_all_uses_with(softmax.outputs[0])
    graph.tidy(model)


def merged(model: ir.Model) -> None:
    """Make one GEMM of query, key and value of the first layer, with one bias, and split its output."""
    gemms = [node for node in nodes(model, "MatMul") if constant(node.inputs[1]) is not None][:3]
    biases = [next(iter(node.outputs[0].uses())).node for node in gemms]
    weight = np.concatenate([constant(node.inputs[1]) for node in gemms], axis=1)
    bias = np.concatenate([next(a for v in node.inputs if (a := constant(v)) is not None) for node in biases])
    shape = ir.Shape([*gemms[0].outputs[0].shape[:2], weight.shape[1]])
    joined = ir.node("MatMul", [gemms[0].inputs[0], add_initializer(model, "qkv.weight", weight)], name="layer.0.qkv")
    biased = ir.node("Add", [joined.outputs[0], add_initializer(model, "qkv.bias", bias)], name="layer.0.qkv.biased")
    split = ir.node("Split", [biased.outputs[0]], {"axis": 2, "num_outputs": 3}, num_outputs=3, name="layer.0.split")
    for node, name in ((joined, "qkv"), (biased, "qkv.biased")):
        node.outputs[0].name, node.outputs[0].shape = name, shape
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(gemms[0], [joined, biased, split])
    for node, output in zip(biases, split.outputs, strict=True):
        output.name, output.type, output.shape = f"{node.name}.split", node.outputs[0].type, node.outputs[0].shape
        node.outputs[0].replace_all_uses_with(output)
    graph.tidy(model)


def test_an_attention_with_a_moved_qdq_pair_is_named(exported):
    model, asked = typed(exported["distilbert"], "int8", after=unpaired)
    first, second = judge(compiled(model, 86), asked)
    # The compiler chooses whether a kernel of its own dequantizes the values first.
    assert re.fullmatch(rf"{LAYER}\.product2: not in INT8, because its kernel multiplies (int8|fp16) by fp16", first)
    assert second == f"{LAYER}.product: attention is not fused with {LAYER}.product2 into one kernel"


def test_query_key_and_value_merged_with_a_scale_for_each_channel_are_named(exported):
    model, asked = typed(exported["distilbert"], "int8", before=merged)
    assert judge(compiled(model, 75), asked) == ["layer.0.qkv: not in INT8, because its kernel multiplies int8 by fp16"]


def test_a_head_in_float32_is_named(exported, monkeypatch):
    monkeypatch.setattr(fp16, "FULL_PRECISION", {*fp16.FULL_PRECISION, "Gemm"})
    model, asked = typed(exported["distilbert"], "int8")
    assert judge(compiled(model, 86), asked) == [
        f"{name}: computed in float32, unlike in the graph" for name in ("pre_classifier", "classifier")
    ]
    with pytest.raises(InputError, match="the GEMM pre_classifier is in float32"):
        compiled(model, 75)


def test_gemms_in_float32_are_reported_only_where_the_graph_types_them_otherwise(exported):
    for name, (model, asked) in emitted(exported["bert"], beyond=True).items():
        assert {one.rpartition("layer.0.")[2] for one in asked.floats} == {"intermediate.dense", "output.dense"}
        kernels = compiled(model, 86)
        assert judge(kernels, asked) == []
        if name == "fp16":
            (found,) = judge(kernels, replace(asked, floats=asked.floats - {"bert.encoder.layer.0.output.dense"}))
            assert found == "bert.encoder.layer.0.output.dense: computed in float32, unlike in the graph"
        with pytest.raises(InputError, match="is in float32, and TensorRT-RTX has no float32 GEMM for Turing"):
            compiled(model, 75)


def test_a_gemm_that_the_graph_lost_is_counted(exported):
    model, asked = typed(exported["distilbert"], "int8")
    lost = replace(asked, recorded=asked.recorded + 2)
    unknown = replace(asked, integers=asked.integers | {"nowhere"}, recorded=asked.recorded + 1)
    kernels = compiled(model, 86)
    assert judge(kernels, lost) == ["the graph has 16 GEMMs to compute in 8 bits, but the quantizer recorded 18"]
    assert judge(kernels, unknown) == ["nowhere: no kernel computes it as a GEMM"]
