"""The calibration network computes the model's hidden state, with the tensor names of the graph without padding."""

import pickle
import sys

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from toolchain import graph
from toolchain.engine.static import static_network
from toolchain.errors import InputError, MachineError
from toolchain.graph.encoder import parse_encoder, tensor_name, tensor_names
from toolchain.graph.plugin_graph import QKV, SKIP_NORM, pack_batch, packed_graph
from toolchain.runtimes.ort import open_session

KINDS = ["distilbert", "bert", "roberta"]
OLD, NEW = {QKV: "1", SKIP_NORM: "1"}, {QKV: "4", SKIP_NORM: "5"}


@pytest.fixture(scope="module")
def double(by_path):
    return by_path("network_double")


@pytest.fixture
def fill(double):
    def make(encoder, batch, versions=NEW):
        network = double.Network()
        rows, length = batch["attention_mask"].shape
        kept = static_network(double.tensorrt(), network, encoder, batch=rows, length=length, versions=versions)
        return network, kept

    return make


def feeds(batch):
    """A padded batch as the fixed-length plugins take it: [length, batch], and how many tokens each row has."""
    made = {name: array.T for name, array in batch.items() if name != "attention_mask"}
    return made | {"lengths": batch["attention_mask"].sum(axis=1, keepdims=True).astype(np.int32)}


@pytest.mark.parametrize("versions", [OLD, NEW])
@pytest.mark.parametrize("kind", KINDS)
def test_the_last_hidden_state_is_that_of_the_model(exported, fill, random_batch, kind, versions):
    model, batch = graph.load(exported[kind]), random_batch(kind, 5, 17)
    network, _ = fill(parse_encoder(model), batch, versions)
    assert {network.get_input(index).name for index in range(network.num_inputs)} == set(feeds(batch))
    assert network.num_outputs == 1
    name = list(graph.nodes(model, "LayerNormalization"))[-1].outputs[0].name
    expected = open_session(graph.with_outputs(model, [name])).run(None, batch)[0]
    found = network.evaluate(feeds(batch))[network.get_output(0).name][..., 0, 0].transpose(1, 0, 2)
    real = batch["attention_mask"] == 1
    np.testing.assert_allclose(found[real], expected[real], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_both_networks_have_the_same_tensors_and_values(by_path, exported, fill, random_batch, kind):
    encoder, batch = parse_encoder(graph.load(exported[kind])), random_batch(kind, 4, 13)
    network, _ = fill(encoder, batch)
    values = network.evaluate(feeds(batch))
    assert len(values) == network.num_inputs + network.num_layers  # no two tensors have one name
    versions = {QKV: "5", SKIP_NORM: "6"}
    model = packed_graph(encoder, dtype="float32", attention_type=0, norm_type=0, versions=versions)
    names = tensor_names(encoder)
    known = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs[:] = [known[name] for name in names]
    session = ReferenceEvaluator(ir.to_proto(model), new_ops=by_path("plugin_reference").OPS)
    real = batch["attention_mask"] == 1
    for name, expected in zip(names, session.run(None, pack_batch(batch)), strict=True):
        found = values[name][..., 0, 0].transpose(1, 0, 2)[real]
        np.testing.assert_allclose(found, expected[..., 0, 0], atol=1e-4, err_msg=name)
    assert network.get_output(0).name == names[-1] == tensor_name(1, "output")


def test_weights_outlive_the_call(exported, double, fill, random_batch):
    created = []
    double.Weights, original = type("Weights", (double.Weights,), {}), double.Weights
    try:
        double.Weights.__init__ = lambda self, array: (original.__init__(self, array), created.append(self))[0]
        _, kept = fill(parse_encoder(graph.load(exported["bert"])), random_batch("bert", 2, 5))
    finally:
        double.Weights = original
    held = {id(one) for one in kept}
    assert len(created) > 20
    assert all(id(one.array) in held for one in created)


def test_relu_and_pickling(exported, double, fill, random_batch, monkeypatch):
    import dataclasses

    encoder, batch = parse_encoder(graph.load(exported["distilbert"])), random_batch("distilbert", 2, 5)
    layers = tuple(dataclasses.replace(layer, activation="relu") for layer in encoder.layers)
    network, _ = fill(dataclasses.replace(encoder, layers=layers), batch)
    values = network.evaluate(feeds(batch))
    name = tensor_name(0, "activated")
    np.testing.assert_array_equal(values[name], np.maximum(values[tensor_name(0, "inner")], 0))
    monkeypatch.setitem(sys.modules, "network_double", double)
    again = pickle.loads(pickle.dumps(network)).evaluate(feeds(batch))
    np.testing.assert_array_equal(again[name], values[name])


def test_a_missing_plugin_is_a_machine_error(exported, double):
    encoder = parse_encoder(graph.load(exported["distilbert"]))
    with pytest.raises(MachineError, match="lacks the plugin CustomSkipLayerNormPluginDynamic, version 5"):
        static_network(double.tensorrt(["1"]), double.Network(), encoder, batch=1, length=4, versions=NEW)


def test_an_error_names_the_refused_layer(exported, double):
    network = double.Network()
    network.add_unary = lambda *_: None
    encoder = parse_encoder(graph.load(exported["distilbert"]))
    with pytest.raises(MachineError, match=r"rejects the layer layer\.0\.activated\.erf"):
        static_network(double.tensorrt(), network, encoder, batch=1, length=4, versions=NEW)


def test_rows_longer_than_the_position_table_are_refused(exported, double):
    encoder = parse_encoder(graph.load(exported["roberta"]))
    with pytest.raises(InputError, match="513 tokens, and the model has 512 positions"):
        static_network(double.tensorrt(), double.Network(), encoder, batch=1, length=513, versions=NEW)
