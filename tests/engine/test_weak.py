"""TensorRT 8 builds a weakly typed network by flags, with LayerNorm in float32, and a release is known by its types."""

import enum
from types import SimpleNamespace

import pytest

from tests.double.here import IN_DOUBLE
from toolchain.engine.releases import RELEASES, TENSORRT_8, release_of
from toolchain.engine.weak import keep_in_float32

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
    """A layer of a network."""

    def __init__(self, name):
        self.name, self.precision, self.outputs = name, None, {}

    def set_output_type(self, index, dtype):
        self.outputs[index] = dtype


def test_layers_stay_in_float32_or_only_their_outputs_do():
    names = ("layer.0.norm.square", "layer.0.ffn.lin1", "softmax")
    layers = [Layer(name) for name in names]
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    kept = {"layer.0.norm.square": True, "layer.0.ffn.lin1": False, "elsewhere": True}
    assert keep_in_float32(SimpleNamespace(float32="float32"), network, kept) == 2
    assert [one.precision for one in layers] == ["float32", None, None]
    assert [one.outputs for one in layers] == [{0: "float32"}, {0: "float32"}, {}]


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
