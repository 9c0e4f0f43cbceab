"""A graph in real halves computes what numpy and onnx's reference evaluator compute in float16."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from toolchain import graph
from toolchain.graph import add_initializer, file_has_halves
from toolchain.graph.fp16 import HALF, to_half
from toolchain.graph.halves import in_halves, to_float
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.runtimes.ort import open_session


def chain(*steps, path=None):
    """Return a graph y = x after these (operator, constant) steps, all in float16 between float32 ends."""
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, 4]))
    model = ir.Model(ir.Graph([value], [], nodes=[], opset_imports={"": 19}, name="g"), ir_version=10)
    for index, (operator, constant) in enumerate([("Cast", None), *steps, ("Cast", None)]):
        inputs = [value if index else model.graph.inputs[0]]
        inputs += [] if constant is None else [add_initializer(model, f"c{index}", np.array(constant, np.float16))]
        last = index == len(steps) + 1
        node = ir.node(operator, inputs, {"to": int(ir.DataType.FLOAT if last else HALF)} if operator == "Cast" else {})
        value = node.outputs[0]
        value.name, value.dtype = "y" if last else f"v{index}", ir.DataType.FLOAT if last else HALF
        model.graph.append(node)
    model.graph.outputs.append(value)
    return model


def run(model, halves, **feeds):
    return open_session(graph.serialised(model), halves=halves).run(None, feeds)[0]


def test_an_activation_beyond_float16_becomes_infinite_and_only_with_halves():
    x = np.array([[400, 1, -400, 0]], np.float32)
    overflows = chain(("Mul", 250), ("Mul", 0.001))
    assert (run(overflows, False, x=x) == np.float32(np.float16(0.001)) * x * 250).all()
    assert run(overflows, True, x=x).tolist() == [[np.inf, 0.25, -np.inf, 0]]


def test_each_step_is_rounded_as_numpy_rounds_it():
    x = np.random.default_rng(0).normal(0, 30, (64, 4)).astype(np.float32)
    x[0], x[1] = [65519, 65520, 1e9, -7e4], [1e-5, 2.9e-8, 3.1e-8, 1e-10]
    weight = np.random.default_rng(1).integers(-8, 9, (4, 4)) / 8
    found = run(chain(("Add", 0.1), ("Mul", 3.3), ("MatMul", weight), ("Div", 7.7), ("Relu", None)), True, x=x)
    with np.errstate(over="ignore", invalid="ignore"):
        half = (x.astype(np.float16) + np.float16(0.1)) * np.float16(3.3)
        product = (half.astype(np.float32) @ weight.astype(np.float32)).astype(np.float16)
        expected = np.maximum(product / np.float16(7.7), np.float16(0))
    assert expected.dtype == np.float16
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_tensors_keep_their_names_and_values_that_are_only_moved_are_not_rounded_again():
    model = chain(("Add", 1), ("Identity", None))
    assert in_halves(model) == 2  # the Cast and the Add
    names = [str(value.name) for node in model.graph for value in node.outputs]
    assert names == ["v0.unrounded", "v0.float16", "v0", "v1.unrounded", "v1.float16", "v1", "v2", "y"]
    assert {node.outputs[0].dtype for node in graph.nodes(model, "Add", "Identity")} == {ir.DataType.FLOAT}
    assert len(to_float(chain(("Add", 1), ("Identity", None)))) == 2


@pytest.fixture(scope="module")
def typed(exported, tokens_of, tmp_path_factory):
    """Precision -> the tiny BERT's graph for TensorRT."""
    folder = tmp_path_factory.mktemp("typed")
    ranges = calibrate(graph.load(exported["bert"]), tokens_of("bert", 32), method="minmax")
    for precision in ("fp16", "int8"):
        model = graph.load(exported["bert"])
        if precision == "int8":
            quantize(model, ranges, TENSORRT)
        to_half(model)
        graph.save(model, folder / f"{precision}.onnx")
    return {precision: folder / f"{precision}.onnx" for precision in ("fp16", "int8")}


class QuantizeLinear(OpRun):
    """To int8 by a division in float32; the evaluator's own divides in float16."""

    op_domain = ""

    def _run(self, x, scale, zero_point, **attributes):
        return (np.clip(np.rint(x.astype(np.float32) / scale.astype(np.float32)), -128, 127).astype(zero_point.dtype),)


class DequantizeLinear(OpRun):
    """To float32, in which the product of an integer and a float16 scale is exact."""

    op_domain = ""

    def _run(self, x, scale, zero_point, axis=1, **attributes):
        shape = [-1 if index == axis else 1 for index in range(x.ndim)] if scale.size > 1 else []
        return (x.astype(np.float32) * scale.astype(np.float32).reshape(shape),)


class MatMul(OpRun):
    """In float32, rounded to float16 at the end; its operands are float16, or float32 of a DequantizeLinear."""

    op_domain = ""

    def _run(self, left, right):
        return ((left.astype(np.float32) @ right.astype(np.float32)).astype(np.float16),)


class LayerNormalization(OpRun):
    """In float32, as `stash_type` says; the evaluator's own computes the statistics of float16 in float16."""

    op_domain = ""

    def _run(self, x, gamma, beta, epsilon=1e-5, **attributes):
        wide = x.astype(np.float32)
        centred = wide - wide.mean(-1, keepdims=True)
        normalised = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + epsilon)
        return ((normalised * gamma + beta).astype(x.dtype),)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_whole_encoder_computes_what_the_reference_evaluator_computes_in_float16(typed, exported, probe, precision):
    batch = probe("bert")
    assert file_has_halves(typed[precision])
    assert not file_has_halves(exported["bert"])
    reference = ReferenceEvaluator(
        str(typed[precision]), new_ops=[QuantizeLinear, DequantizeLinear, MatMul, LayerNormalization]
    )
    expected = reference.run(None, batch)[0]
    in_float = open_session(typed[precision]).run(None, batch)[0]
    found = open_session(typed[precision], halves=True).run(None, batch)[0]
    # Sums in another order change single values by one unit, and a value at the edge of two integers by one of these.
    assert np.abs(found - expected).mean() < np.abs(in_float - expected).mean() / 2


INTEGER = """<ir_version: 10, opset_import: ["": 19]>
g (float[n, 1] x) => (float[n, 1] product, float[n, 1] sum)
<float factor = {0.1}, int8 zero = {0}, int8[1, 1] w = {127}> {
    scale = Cast <to = 10> (factor)
    q = QuantizeLinear (x, factor, zero)
    a = DequantizeLinear (q, scale, zero)
    b = DequantizeLinear (w, scale, zero)
    half = MatMul (a, b)
    twice = Add (a, a)
    product = Cast <to = 1> (half)
    sum = Cast <to = 1> (twice)
}"""


def test_an_int8_gemm_multiplies_integers_and_other_nodes_read_a_rounded_tensor():
    model = ir.serde.deserialize_model(onnx.parser.parse_model(INTEGER))
    integers, scale = np.arange(-127, 128, dtype=np.float32)[:, None], np.float32(np.float16(0.1))
    session = open_session(graph.serialised(model), halves=True)
    product, total = session.run(None, {"x": integers * np.float32(0.1)})
    np.testing.assert_array_equal(product, np.float32((integers * 127 * scale * scale).astype(np.float16)))
    half = (integers * scale).astype(np.float16)
    np.testing.assert_array_equal(total, np.float32(half + half))
    assert (np.float32(half) != integers * scale).any()


def test_a_clone_is_rounded_and_the_graph_itself_is_left_as_it_is(typed):
    model = graph.load(typed["int8"])
    before = graph.serialised(model)
    in_halves(model.clone())
    assert graph.serialised(model) == before
