"""TensorRT 8 builds a weakly typed network by flags, with LayerNorm in float32, and a release is known by its types."""

import enum
from types import SimpleNamespace

import pytest

from tests.double.here import IN_DOUBLE
from toolchain.engine.releases import RELEASES, TENSORRT_8, release_of
from toolchain.engine.weak import keep_norms_in_float32

if IN_DOUBLE:
    import numpy as np
    import tensorrt as trt
    from onnx import helper

    from tests.double.prelude import model
    from toolchain.engine.builder import Builder
    from toolchain.engine.config import Options


def test_a_release_without_strong_types_is_tensorrt_8():
    for flags, release in (("STRONGLY_TYPED", RELEASES["trt"]), ("EXPLICIT_BATCH", TENSORRT_8)):
        members = enum.IntEnum("NetworkDefinitionCreationFlag", flags)
        assert release_of(SimpleNamespace(__name__="tensorrt", NetworkDefinitionCreationFlag=members)) is release


class Layer:
    """A layer of a network; the bindings give its operation only to its own class."""

    def __init__(self, kind, operation=None, dtype="float32"):
        self.type, self.op = SimpleNamespace(name=kind), SimpleNamespace(name=operation)
        self.precision, self.outputs, self.dtype = None, {}, dtype

    def get_output(self, index):
        return SimpleNamespace(dtype=self.dtype)

    def set_output_type(self, index, dtype):
        self.outputs[index] = dtype


def test_powers_means_and_square_roots_stay_in_float32():
    kinds = {f"I{name}Layer": type(name, (Layer,), {}) for name in ("ElementWise", "Reduce", "Unary")}
    trt = SimpleNamespace(float32="float32", float16="float16", **kinds)
    norm = [Layer("REDUCE", "AVG"), Layer("ELEMENTWISE", "POW"), Layer("UNARY", "SQRT", "float16")]
    others = [Layer("ELEMENTWISE", "SUM"), Layer("UNARY", "ERF"), Layer("REDUCE", "SUM", "int32"), Layer("SOFTMAX")]
    layers = [*norm, *others]
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    assert keep_norms_in_float32(trt, network) == 3
    assert [(one.precision, one.outputs) for one in norm] == [("float32", {0: "float32"})] * 3
    assert all(one.precision is None for one in others)


@pytest.mark.double(version="8.6.1")
def test_flags_choose_the_types_of_a_network():
    assert not hasattr(trt, "IProgressMonitor")
    builder = Builder(trt, "g.onnx")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = model([node], {"w": np.ones((8, 8), np.float32)}).SerializeToString()
    network = builder.parse(graph, strongly_typed=True)
    shapes = {"x": ((1, 8), (2, 8), (4, 8))}
    assert builder.build(network, [shapes], Options(), timing=None, implicit=TENSORRT_8.flags["int8"]).plan
    (told,) = (call[1] for call in trt.double_calls if call[0] == "build")
    assert {"FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"} <= set(told["flags"])
    assert not told["typed"]
