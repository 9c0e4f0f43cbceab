import numpy as np
import pytest

from toolchain import graph
from toolchain.errors import InputError
from toolchain.graph.gemms import attention_gemms, linear_layers


def test_a_file_that_is_not_a_graph_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"m\.onnx: not an ONNX graph"):
        graph.load(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="no such file"):
        graph.load(tmp_path / "none.onnx")


def test_linear_layers_and_attention_gemms_are_distinguished(exported):
    model = graph.load(exported["distilbert"])
    assert len(linear_layers(model)) == 2 * 6
    assert len(attention_gemms(model)) == 2 * 2


def test_nodes_have_the_names_of_their_modules(exported):
    model = graph.load(exported["bert"])
    names = [node.name for node in linear_layers(model)]
    assert names[0] == "bert.encoder.layer.0.attention.self.query"
    assert "bert.encoder.layer.1.output.dense" in names


def test_the_exporters_metadata_is_removed(exported):
    data = exported["distilbert"].read_bytes()
    assert b"site-packages" not in data
    assert b"stack_trace" not in data


def test_add_initializer_returns_the_same_value_for_the_same_name(exported):
    model = graph.load(exported["distilbert"])
    one = graph.add_initializer(model, "mine", np.ones(3, np.float32))
    assert graph.add_initializer(model, "mine", np.ones(3, np.float32)) is one
