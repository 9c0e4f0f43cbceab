"""TensorRT-RTX compiles graphs for GPUs that this machine lacks; these tests run its real compiler."""

import json

import pytest
from onnx import TensorProto, helper

from toolchain.engine.cross import compile_static
from toolchain.engine.releases import import_release
from toolchain.engine.targets import compute_capabilities, parse_targets
from toolchain.errors import InputError, UsageError

pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")


def gemm(dtype: int) -> bytes:
    values = [helper.make_tensor_value_info(name, dtype, [8, 16]) for name in ("x", "y")]
    weight = helper.make_tensor("w", dtype, [16, 16], [0.5] * 256)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer.product")
    graph = helper.make_graph([node], "graph", values[:1], values[1:], [weight])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def test_a_graph_is_compiled_and_its_layers_are_listed():
    built = compile_static(gemm(TensorProto.FLOAT16), 75, {"x": (8, 16)})
    ((product,),) = json.loads(built.layers)["profiles"]
    assert (product["nodes"], product["precision"]) == (["layer.product"], "fp16")
    assert product["operations"] == 2 * 8 * 16 * 16
    assert (built.summary["layers"], built.summary["products"]) == (1, 1)
    assert len(built.plan) > 100
    assert built.messages.errors == []


def test_a_float32_gemm_on_turing_is_named():
    with pytest.raises(
        InputError,
        match=r"layer\.product is in float32, .* Choose a --precision whose GEMMs are in float16 or INT8, or a later",
    ):
        compile_static(gemm(TensorProto.FLOAT), 75, {"x": (8, 16)})
    assert compile_static(gemm(TensorProto.FLOAT), 86, {"x": (8, 16)}).plan


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (b"", "the graph has no inputs or no outputs"),
        (gemm(TensorProto.FLOAT16)[:300], "TensorRT-RTX cannot parse the graph"),
    ],
)
def test_what_is_not_a_graph_is_refused(graph, message):
    with pytest.raises(InputError, match=rf"g\.onnx: {message}"):
        compile_static(graph, 86, {"x": (8, 16)}, where="g.onnx")


def test_targets_are_what_the_library_compiles_for():
    trt = import_release("trt-rtx")
    known = compute_capabilities(trt)
    assert {75, 80, 86, 89, 120} <= set(known)
    assert parse_targets(trt, "t4, L4,sm86,SM_75,rtx-4090") == [75, 89, 86]


@pytest.mark.parametrize("name", ["h100", "sm90", "gtx1080", "", "t4,h200"])
def test_an_unknown_target_is_refused_with_the_list(name):
    with pytest.raises(UsageError, match=r"does not compile for this GPU\. Choose .*t4, .*sm75, .*sm120"):
        parse_targets(import_release("trt-rtx"), name)
