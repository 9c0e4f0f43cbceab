"""Graphs in PyTorch, against ONNX Runtime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from toolchain import graph
from toolchain.distill.torch_graph import torch_graph
from toolchain.errors import InputError
from toolchain.runtimes.ort import open_ort


def as_tensors(batch):
    return {name: torch.from_numpy(array).long() for name, array in batch.items()}


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_a_graph_has_the_same_logits_in_pytorch(exported, tokens_of, kind):
    batch = tokens_of(kind, 6).batch(np.arange(6))
    with open_ort(exported[kind], device="cpu") as infer:
        expected = infer(batch)
    found = torch_graph(graph.load(exported[kind]), {}).logits(as_tensors(batch))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def run_node(op_type, arrays, **attributes):
    """Return a node's first output in PyTorch and in ONNX Runtime, of inputs that are constants but for the first."""
    import onnxruntime

    names = [f"x{at}" for at in range(len(arrays))]
    inputs = [onnx.helper.make_tensor_value_info("x0", onnx.helper.np_dtype_to_tensor_dtype(arrays[0].dtype), None)]
    output = onnx.helper.make_empty_tensor_value_info("y")
    node = onnx.helper.make_node(op_type, names, ["y", "z"] if op_type == "Split" else ["y"], **attributes)
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in zip(names[1:], arrays[1:], strict=True)]
    made = onnx.helper.make_graph([node], "one", inputs, [output], constants)
    proto = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    expected = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x0": arrays[0]})[0]
    return torch_graph(ir.from_proto(proto), {}).logits({"x0": torch.from_numpy(arrays[0])}).numpy(), expected


X = np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7


@pytest.mark.parametrize(
    ("op_type", "arrays", "attributes"),
    [
        ("Slice", [X, np.array([1]), np.array([-1]), np.array([2])], {}),
        ("Gather", [X, np.array([[0, -1]])], {"axis": 1}),
        ("Expand", [X[:, :1], np.array([1, 3, 1])], {}),
        ("Reshape", [X, np.array([0, -1])], {}),
        ("ReduceMean", [X, np.array([-1])], {"keepdims": 0}),
        ("Unsqueeze", [X, np.array([0, -1])], {}),
        ("Div", [np.array([-7, 7]), np.array([2, 2])], {}),
        ("CumSum", [X, np.array(1)], {}),
        ("Split", [X, np.array([1, 3])], {"axis": 2}),
        ("Gemm", [X[0], X[1], X[0, :, :3]], {"transB": 1, "alpha": 0.5}),
        ("QuantizeLinear", [X, np.array(0.1, np.float32), np.array(3, np.uint8)], {}),
    ],
)
def test_an_operator_is_that_of_onnx(op_type, arrays, attributes):
    found, expected = run_node(op_type, arrays, **attributes)
    if op_type == "QuantizeLinear":  # in PyTorch it is dequantized already
        expected = (expected.astype(np.float32) - 3) * np.float32(0.1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_quantizer_with_a_scale_for_each_channel_is_that_of_onnx(axis):
    channels = X.shape[axis]
    scale, zero = np.linspace(0.05, 0.2, channels, dtype=np.float32), np.arange(channels, dtype=np.int8)
    found, expected = run_node("QuantizeLinear", [X, scale, zero], axis=axis)
    shape = [channels if at == axis % 3 else 1 for at in range(3)]
    expected = (expected.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("op_type", "arrays"),
    [
        ("Max", [X, X, X]),
        ("Transpose", [X]),
        ("Slice", [X, np.array([-1]), np.array([-9]), np.array([2]), np.array([-1])]),
        ("QuantizeLinear", [X, np.array(0.1, np.float32)]),
    ],
)
def test_a_form_of_an_operator_that_is_not_known_is_refused(op_type, arrays):
    with pytest.raises(InputError, match=rf"^PyTorch cannot run the operator {op_type} of .*: .*Use `toolchain tune`"):
        run_node(op_type, arrays)


def test_an_unknown_operator_is_named():
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("Erfinv", [value])
    model = ir.Model(ir.Graph([value], node.outputs, nodes=[node]), ir_version=10)
    with pytest.raises(InputError, match="Erfinv"):
        torch_graph(model, {})
