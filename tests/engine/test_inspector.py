"""Counts over layers as TensorRT 10 and 11 describe them in the engine inspector's JSON."""

import json

import pytest

from toolchain.engine.inspector import count_layers, datatype, is_gemm, is_int8


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


def test_gemms_fused_attention_and_types_are_counted():
    found = count_layers(json.dumps({"Layers": LAYERS, "Bindings": []}))
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


def test_of_bare_names_only_the_number_is_known():
    found = count_layers('{"Layers": ["a", "b"]}')
    assert found.pop("layers") == 2
    assert set(found.values()) == {None}


def test_an_engine_without_layers_has_no_gemms():
    assert count_layers("{}")["int8_products"] == 0


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
def test_gemms_and_int8_are_recognised(one, product, int8):
    assert (is_gemm(one), is_int8(one)) == (product, int8)


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
def test_types_are_recognised_in_the_inspectors_texts(text, name):
    assert datatype({"Format/Datatype": text}) == name
    assert datatype({"Datatype": text}) == name
