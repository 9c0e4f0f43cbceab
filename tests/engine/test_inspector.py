"""What an engine inspector's JSON is counted as, on layers as TensorRT 10 and 11 describe them."""

import json

import pytest

from toolchain.engine.inspector import datatype, is_int8, is_product, summarise


def port(kind):
    return {"Name": "t", "Format/Datatype": kind}


def layer(kind, name, tactic="", inputs=("Row major linear FP16 format",), output="Row major linear FP16 format"):
    return {
        "Name": name,
        "LayerType": kind,
        "TacticName": tactic,
        "Inputs": [port(one) for one in inputs],
        "Outputs": [port(output)],
    }


INT8 = "Thirty-two wide channel vectorized row major Int8 format"
LAYERS = [
    layer("gemm", "q_lin/MatMul", "sm75_xmma_gemm_i8i8_i8i32_f32_tn_n", [INT8]),
    layer("gemm", "classifier/MatMul", "sm75_xmma_gemm_f16f16_f16f32_f32_tn_n"),
    layer("kgen", "_gemm_mha_v2_myl0_3", "_gemm_mha_v2_0x1f", [INT8, INT8]),
    layer("kgen", "layer.0.attention/LayerNormalization", "__myl_ResiMeanSub", output="Row major linear FP32"),
    layer("Reformat", "Reformatting CopyNode for Input Tensor 0 to q_lin/MatMul", "0x3e8", output=INT8),
]


def test_products_fused_attention_and_types_are_counted():
    found = summarise(json.dumps({"Layers": LAYERS, "Bindings": []}))
    assert found == {
        "layers": 5,
        "by_type": {"gemm": 2, "kgen": 2, "Reformat": 1},
        "by_precision": {"fp16": 3, "fp32": 1, "int8": 1},
        "products": 3,
        "int8_products": 2,
        "unknown_products": 0,
        "fused_attention": 1,
        "reformats": 1,
        "int8_names": ["q_lin/MatMul", "_gemm_mha_v2_myl0_3"],
    }


def test_bare_names_are_counted_and_no_more_is_said():
    found = summarise('{"Layers": ["a", "b"]}')
    assert found.pop("layers") == 2
    assert set(found.values()) == {None}


def test_no_layers_are_no_products():
    assert summarise("{}")["int8_products"] == 0


@pytest.mark.parametrize(
    ("one", "product", "int8"),
    [
        (
            layer("CaskConvolution", "layer.0.qkv", "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32"),
            True,
            True,
        ),
        (layer("PluginV3", "context", "CustomQKVToContextPluginDynamic", [INT8]), True, True),
        (layer("kgen", "layer.0.attention.self/Softmax", "__myl_MaxSubExp"), False, False),
        (layer("Reformat", "Reformatting CopyNode for MatMul", "", [INT8]), False, True),
        (layer("MatrixMultiply", "MatMul", "sm90_imma_s8s8"), True, True),
        ({"Name": "bare"}, False, None),
        (layer("gemm", "lin1", "sm75_gemm_0x1", ["N/A due to dynamic shapes"]), True, None),
    ],
)
def test_what_is_a_product_and_what_is_int8(one, product, int8):
    assert (is_product(one), is_int8(one)) == (product, int8)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Row major Int8 format", "int8"),
        ("Two wide channel vectorized row major FP16 format", "fp16"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Row major linear FP32", "fp32"),
        ("Float", "fp32"),
        ("Half", "fp16"),
        ("Row major linear Int32 format", "int32"),
        ("Bool", "other"),
    ],
)
def test_types_by_the_words_of_the_inspector(text, name):
    assert datatype({"Format/Datatype": text}) == name
    assert datatype({"Datatype": text}) == name
