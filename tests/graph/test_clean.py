"""Each cleaning pass changes what it is for; tests/checkpoint/test_export.py checks that together they keep logits."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from toolchain import graph
from toolchain.graph import clean


def model_of(nodes, inputs, outputs, constants):
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(made))


def run(model, **feeds):
    return ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)[0]


@pytest.mark.parametrize("lowest", [-np.inf, np.finfo(np.float32).min])
def test_finite_masks_raises_constants_that_mean_minus_infinity(lowest):
    model = model_of([helper.make_node("Add", ["x", "m"], ["y"])], {"x": [2]}, {"y": [2]}, {"m": np.float32(lowest)})
    assert clean.finite_masks(model) == 1
    assert run(model, x=np.zeros(2, np.float32)).tolist() == [-1e4, -1e4]


def test_finite_masks_keeps_large_weights():
    model = model_of(
        [helper.make_node("Add", ["x", "m"], ["y"])], {"x": [2]}, {"y": [2]}, {"m": np.full(2, -1e5, np.float32)}
    )
    assert clean.finite_masks(model) == 0


def gelu():
    nodes = [
        helper.make_node("Div", ["x", "root2"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["half", "c"], ["d"]),
        helper.make_node("Mul", ["x", "d"], ["y"]),
    ]
    constants = {"root2": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    return model_of(nodes, {"x": [5]}, {"y": [5]}, constants)


def test_plain_gelu_keeps_the_values_and_ends_with_the_half():
    model, x = gelu(), np.linspace(-3, 3, 5, dtype=np.float32)
    before = run(model, x=x)
    assert clean.plain_gelu(model) == 1
    np.testing.assert_allclose(run(model, x=x), before, rtol=1e-6)
    last = model.graph.outputs[0].producer()
    assert graph.constant(last.inputs[1]).item() == 0.5


def attention(op="Mul", factor=0.25):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node(op, ["s", "f"], ["z"]),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    generator = np.random.default_rng(0)
    constants = {
        "w": generator.normal(size=(4, 4)).astype(np.float32),
        "b": generator.normal(size=4).astype(np.float32),
        "f": np.float32(factor),
    }
    return model_of(nodes, {"x": [1, 3, 4]}, {"y": [1, 3, 3]}, constants)


@pytest.mark.parametrize(("op", "factor"), [("Mul", 0.25), ("Div", 4.0)])
def test_fold_attention_scale_keeps_the_scores_and_removes_the_node(op, factor):
    model = attention(op, factor)
    x = np.random.default_rng(1).normal(size=(1, 3, 4)).astype(np.float32)
    before = run(model, x=x)
    assert clean.fold_attention_scale(model) == 1
    graph.tidy(model)
    np.testing.assert_allclose(run(model, x=x), before, rtol=1e-5)
    assert op not in [node.op_type for node in model.graph]


def test_fold_attention_scale_keeps_a_query_with_other_readers():
    model = attention()
    query = next(node for node in model.graph if node.op_type == "Add").outputs[0]
    model.graph.outputs.append(query)
    reader = ir.node("Identity", [query])
    model.graph.append(reader)
    assert clean.fold_attention_scale(model) == 0


def test_float_sums_counts_the_same_positions_in_float():
    ids = np.array([[3, 1, 0, 4]], np.int64)
    made = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("CumSum", ["ids", "axis"], ["sums"]),
                helper.make_node("Identity", ["sums"], ["counted"]),
            ],
            "test",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 4])],
            [helper.make_tensor_value_info("counted", TensorProto.INT64, [1, 4])],
            [numpy_helper.from_array(np.array(1), "axis")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
    )
    model = ir.from_proto(made)
    assert clean.float_sums(model) == 1
    assert clean.float_sums(model) == 0
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = run(model, ids=ids)
    assert found.dtype == np.int64
    assert found.tolist() == np.cumsum(ids, axis=1).tolist()
