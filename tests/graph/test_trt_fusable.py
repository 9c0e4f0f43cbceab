"""Our typed graphs have the form that TensorRT fuses, and each deviation from it is reported."""

import numpy as np
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.graph.gemms import attention_gemms, find_gemms
from toolchain.graph.trt_fusable import attention_faults
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import TENSORRT, quantize

KINDS = ["distilbert", "bert", "roberta"]


@pytest.fixture(scope="module")
def ranges(exported, tokens_of):
    return {kind: calibrate(graph.load(exported[kind]), tokens_of(kind, 20), method="minmax") for kind in KINDS}


@pytest.fixture
def half(exported):
    def make(kind="distilbert"):
        model = graph.load(exported[kind])
        to_half(model)
        return model

    return make


@pytest.fixture
def int8(exported, ranges):
    def make(kind="distilbert", keep=None, prepare=lambda model: None, **chosen):
        model = graph.load(exported[kind])
        prepare(model)
        quantize(model, ranges[kind], TENSORRT, keep=find_gemms(model, keep), **chosen)
        to_half(model)
        return model

    return make


def faults(model, max_length=128):
    return attention_faults(model, max_length=max_length)


def softmax_of(model):
    return next(graph.nodes(model, "Softmax"))


def gemms_of(model):
    """Return the two GEMMs of the first attention."""
    named = {str(node.name): node for node in graph.nodes(model, "MatMul")}
    return next(node for name, node in named.items() if name.endswith(".product")), next(
        node for name, node in named.items() if name.endswith(".product2")
    )


def insert(model, operator, value, *others, name="added"):
    """Insert a node between a value and its readers."""
    uses = list(value.uses())
    node = ir.node(operator, [value, *others], name=name)
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = f"{name}.output", value.type, value.shape
    for use in uses:
        use.node.replace_input_with(use.idx, node.outputs[0])
    model.graph.insert_after(value.producer(), node)
    return node


def number(model, value, dtype=np.float16):
    return graph.add_initializer(model, f"number {value}", np.array(value, dtype))


def without_qdq(value):
    """Let the readers of a dequantized value read the float value instead."""
    dequantize = value.producer()
    quantize = dequantize.inputs[0].producer()
    for use in list(value.uses()):
        use.node.replace_input_with(use.idx, quantize.inputs[0])


@pytest.mark.parametrize("kind", KINDS)
def test_our_typed_graphs_can_be_fused(half, int8, kind):
    assert faults(half(kind), 4096) == []
    assert faults(int8(kind), 512) == []
    assert faults(int8(kind, prepare=first_token, residual=True), 512) == []


def test_attention_in_float16_inside_an_int8_graph_can_be_fused(int8):
    assert faults(int8(keep="*.product,*.product2")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_float32_graph_has_one_fault(exported, kind):
    assert faults(graph.load(exported[kind])) == ["float32 GEMMs are not fused: build with --precision fp16 or int8"]


def test_a_graph_without_attention_is_reported(half):
    model = half()
    for node in attention_gemms(model):
        node.replace_input_with(1, number(model, 1.0))
    assert faults(model) == ["no attention: the graph has no GEMM of two activations"]


def test_one_float32_input_is_reported(half):
    model = half()
    first, _ = gemms_of(model)
    insert(model, "Cast", first.inputs[0]).outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    assert faults(model) == [f"{first.name}: Q is FLOAT, and only FLOAT16, BFLOAT16 and dequantized INT8 are fused"]


@pytest.mark.parametrize("operator", ["Mul", "Div"])
def test_scaling_after_the_first_gemm_is_reported(half, operator):
    model = half()
    first, _ = gemms_of(model)
    insert(model, operator, first.outputs[0], number(model, 8.0))
    assert faults(model) == [f"{first.name}: added scales after the first GEMM; Q or K must be scaled before it"]


def test_scaling_of_q_before_the_first_gemm_is_allowed(half):
    model = half()
    first, _ = gemms_of(model)
    insert(model, "Mul", first.inputs[0], number(model, 0.25))
    assert faults(model) == []


@pytest.mark.parametrize("operator", ["Clip", "QuantizeLinear"])
def test_another_operator_before_softmax_is_reported(half, operator):
    model = half()
    first, _ = gemms_of(model)
    insert(model, operator, first.outputs[0], number(model, 8.0))
    reason = "is between the first GEMM and softmax; only a mask may be added there"
    assert faults(model) == [f"{first.name}: added ({operator}) {reason}"]


def test_a_second_addition_before_softmax_is_reported(half):
    model = half()
    first, _ = gemms_of(model)
    insert(model, "Add", softmax_of(model).inputs[0], number(model, 8.0, np.float32))
    assert faults(model) == [f"{first.name}: 2 additions before softmax; only the addition of the mask is expected"]


def test_an_operator_after_softmax_is_reported(half):
    model = half()
    first, _ = gemms_of(model)
    insert(model, "Relu", softmax_of(model).outputs[0], name="guard")
    assert faults(model) == [
        f"{first.name}: guard (Relu) is between softmax and the second GEMM; no operator may be there"
    ]


@pytest.mark.parametrize(
    ("size", "half_fault", "int8_fault"),
    [(16, 0, 0), (32, 0, 0), (48, 0, 1), (64, 0, 0), (128, 0, 1), (256, 0, 1), (8, 1, 1), (20, 1, 1), (264, 1, 1)],
)
def test_head_sizes_without_a_kernel_are_reported(half, int8, size, half_fault, int8_fault):
    for model, expected in ((half(), half_fault), (int8(), int8_fault)):
        first, _ = gemms_of(model)
        first.inputs[0].shape = ir.Shape(["batch", 2, "sequence", size])
        assert len(faults(model)) == expected
        assert all(f"head size {size} of Q" in fault for fault in faults(model))


def test_an_unknown_head_size_is_reported(half):
    model = half()
    first, second = gemms_of(model)
    second.inputs[1].shape = None
    assert faults(model) == [f"{first.name}: the head size of V is not known"]


def test_int8_beyond_512_tokens_is_reported(int8):
    found = faults(int8(), 513)
    assert len(found) == 2  # one for each layer
    assert all("length 513: attention in INT8 is fused only up to 512 tokens" in fault for fault in found)


@pytest.mark.parametrize(
    ("product", "position", "name"), [(0, 0, "Q"), (0, 1, "K"), (1, 0, "probabilities"), (1, 1, "V")]
)
def test_an_input_without_qdq_is_reported(int8, product, position, name):
    model = int8()
    both = gemms_of(model)
    without_qdq(both[product].inputs[position])
    both[product].inputs[position].dtype = ir.DataType.FLOAT16  # softmax has float32 before its Q
    assert faults(model) == [f"{both[0].name}: the attention is in INT8, but {name} has no Q/DQ nodes"]


def test_an_output_without_qdq_is_reported(int8):
    model = int8(keep="*layer.0*out_lin")
    first, _ = gemms_of(model)
    reason = "the attention is in INT8, but the output of the second GEMM has no Q/DQ nodes"
    assert faults(model) == [f"{first.name}: {reason}"]


def test_int8_in_one_gemm_alone_is_reported(int8):
    model = int8(keep="*layer.0*.product2")
    first, _ = gemms_of(model)
    reasons = [f"the attention is in INT8, but {name} has no Q/DQ nodes" for name in ("probabilities", "V")]
    assert faults(model) == [f"{first.name}: {reason}" for reason in reasons]


def qdq(model, node, position):
    """Let a node read one of its inputs in INT8."""
    scale = number(model, 0.1, node.inputs[position].dtype.numpy())
    zero = graph.add_initializer(model, "zero", np.array(0, np.int8))
    quantize = ir.node("QuantizeLinear", [node.inputs[position], scale, zero])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero])
    model.graph.insert_before(node, [quantize, dequantize])
    node.replace_input_with(position, dequantize.outputs[0])


def test_int8_on_the_mask_is_reported(int8):
    model = int8()
    first, _ = gemms_of(model)
    qdq(model, softmax_of(model).inputs[0].producer(), 1)
    assert faults(model) == [f"{first.name}: the addition of the mask reads a tensor dequantized from INT8"]


def test_a_gemm_without_softmax_is_reported(half):
    model = half()
    softmax = softmax_of(model)
    for use in list(softmax.outputs[0].uses()):
        use.node.replace_input_with(use.idx, softmax.inputs[0])
    graph.tidy(model)
    first, second = gemms_of(model)
    text = "not part of an attention, which is a GEMM, a softmax and a GEMM"
    assert faults(model) == [f"{node.name}: {text}" for node in (first, second)]
