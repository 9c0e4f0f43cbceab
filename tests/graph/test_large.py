"""Graphs whose weights do not fit beside their nodes, with the limit lowered from 2 GB to 4 kB."""

import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.base.files import sha256_file
from toolchain.errors import InputError
from toolchain.int8.coverage import optimised
from toolchain.runtimes.ort import open_ort


@pytest.fixture
def large(exported, tmp_path, monkeypatch):
    """The file of a graph of BERT, whose weights are in a file of their own."""
    monkeypatch.setattr(graph, "MAX_BYTES", 4096)
    graph.save(graph.load(exported["bert"]), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def logits(model, batch):
    with open_ort(model, device="cpu") as infer:
        return infer(batch)


def test_a_large_graph_computes_the_same_from_its_files_and_from_memory(large, exported, probe):
    batch = probe("bert")
    expected = logits(exported["bert"], batch)
    assert [file.name for file in graph.files_of(large)] == ["model.onnx", "model.onnx.data"]
    assert large.stat().st_size < exported["bert"].stat().st_size / 4
    onnx.checker.check_model(large, full_check=True)
    loaded = graph.load(large)
    message = graph.message(loaded)
    assert len(message) < 100_000
    for model in (large, message):
        np.testing.assert_array_equal(logits(model, batch), expected)
    again = graph.message(graph.load(message))  # as `--halves` reads one
    np.testing.assert_array_equal(logits(again, batch), expected)
    name = str(next(iter(graph.nodes(loaded, "LayerNormalization"))).outputs[0].name)
    needed = graph.with_outputs(loaded, [name]).weights.keys()
    assert set() < needed < message.weights.keys()


def test_messages_of_copies_of_a_graph_share_its_weights(exported):
    model = graph.load(exported["bert"])
    one, other = graph.message(model), graph.message(model.clone())
    assert one.weights
    assert all(np.shares_memory(array, other.weights[name]) for name, array in one.weights.items())


def test_a_large_graph_survives_the_optimiser_of_onnx_runtime(large, exported):
    kinds = [[node.op_type for node in optimised(file).graph] for file in (large, exported["bert"])]
    assert kinds[0] == kinds[1]


def test_a_graph_has_the_digest_of_its_weights(large):
    before = sha256_file(large)
    graph.save(graph.load(large), large.with_name("again.onnx"))
    assert sha256_file(large.with_name("again.onnx.data")) == sha256_file(graph.data_file(large))
    model = graph.load(large)
    name, value = next((name, one) for name, one in model.graph.initializers.items() if one.const_value.nbytes > 4096)
    value.const_value = ir.tensor(value.const_value.numpy() + 1, name=name)
    changed = large.with_name("changed") / "model.onnx"
    changed.parent.mkdir()
    graph.save(model, changed)
    assert sha256_file(changed) != before


def test_a_graph_that_became_small_is_one_file_again(large, exported, probe, monkeypatch):
    monkeypatch.setattr(graph, "MAX_BYTES", 2**30)
    folder = large.parent / "small"
    folder.mkdir()
    graph.save(graph.load(large), folder / "model.onnx")
    assert [file.name for file in folder.iterdir()] == ["model.onnx"]
    np.testing.assert_array_equal(logits(folder / "model.onnx", probe("bert")), logits(exported["bert"], probe("bert")))
    in_memory = graph.message(graph.load(large), most_bytes=graph.MAX_BYTES)
    assert not in_memory.weights
    np.testing.assert_array_equal(logits(in_memory, probe("bert")), logits(exported["bert"], probe("bert")))


def test_one_message_is_refused_where_only_one_will_do(large):
    with pytest.raises(InputError, match=r"0\.0 GB, and one ONNX message holds 2 GB\. Build with --precision"):
        graph.serialised(graph.load(large))


def test_weights_that_are_missing_cut_off_or_elsewhere_are_named(large, tmp_path):
    data = graph.data_file(large)
    whole = data.read_bytes()
    data.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"model\.onnx: its weights file model\.onnx\.data is too short"):
        graph.load(large)
    data.unlink()
    with pytest.raises(InputError, match=r"its weights are in model\.onnx\.data, which is missing\. Copy both files"):
        graph.load(large)
    (tmp_path / "below").mkdir()
    data.write_bytes(whole)
    model = onnx.load(large, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../model.onnx.data" if entry.key == "location" else entry.value
    onnx.save(model, tmp_path / "below/model.onnx")
    shutil.copy(data, tmp_path / "below")
    with pytest.raises(InputError, match=r"outside the graph's folder"):
        graph.load(tmp_path / "below/model.onnx")
