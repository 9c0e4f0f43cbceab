"""A graph without a part equals the PyTorch model without it; a repeated part runs the given number of times more."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from toolchain import graph
from toolchain.checkpoint.model import find_model, load_model
from toolchain.errors import InputError
from toolchain.graph.cpu import for_cpu
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.graph.smooth import folds, smooth
from toolchain.int8.calibrate import calibrate
from toolchain.int8.coverage import optimised
from toolchain.int8.quantize import CPU, TENSORRT, quantize
from toolchain.profile.ablate import repeated, without
from toolchain.profile.groups import NORMS
from toolchain.runtimes.ort import open_ort, open_session

KINDS = ("distilbert", "bert", "roberta")


def run(model, batch):
    onnx.checker.check_model(onnx.load_from_string(graph.serialised(model)))
    with open_ort(graph.serialised(model), device="cpu") as infer:
        return infer(batch)


def written_out(module, kind, group, batch):
    """Run the parts of a model by hand, except one in each layer."""
    given = {name: torch.from_numpy(array).long() for name, array in batch.items()}
    mask = (1.0 - given["attention_mask"][:, None, None, :].float()) * -1e4
    base = getattr(module, kind)
    x = base.embeddings(**{name: array for name, array in given.items() if name != "attention_mask"})
    for layer in base.transformer.layer if kind == "distilbert" else base.encoder.layer:
        if group == "feed_forward" and kind == "distilbert":
            x = layer.sa_layer_norm(layer.attention(x, attention_mask=mask)[0] + x)
        elif group == "feed_forward":
            x = layer.attention(x, attention_mask=mask)[0]
        elif kind == "distilbert":
            x = layer.output_layer_norm(layer.ffn(x) + x)
        else:
            x = layer.output(layer.intermediate(x), x)
    if kind == "distilbert":
        return module.classifier(torch.relu(module.pre_classifier(x[:, 0]))).numpy()
    return module.classifier(base.pooler(x) if kind == "bert" else x).numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", ["attention", "feed_forward"])
@pytest.mark.parametrize("prepare", [lambda model: None, for_cpu], ids=["plain", "for_cpu"])
def test_a_graph_without_a_part_equals_the_model(checkpoints, exported, probe, reference, kind, group, prepare):
    model, batch = graph.load(exported[kind]), probe(kind)
    prepare(model)
    assert without(model, group) == 2
    found = run(model, batch)
    with torch.inference_mode():
        expected = written_out(load_model(find_model(str(checkpoints[kind]))), kind, group, batch)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - reference(kind, batch)).max() > 1e-2
    left = Counter(node.op_type for node in model.graph)
    assert (left["Softmax"], left["LayerNormalization"]) == ((0, 3) if group == "attention" else (2, 3))


def fp16(model, ranges):
    to_half(model)


def cpu(model, ranges):
    quantize(model, ranges, CPU)


def tensorrt(model, ranges):
    quantize(model, ranges, TENSORRT, residual=True)
    to_half(model)


VIEWS = [fp16, cpu, tensorrt]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("prepare", [lambda model: None, first_token], ids=["all tokens", "first token"])
@pytest.mark.parametrize("group", ["attention", "feed_forward"])
def test_typed_graphs_lose_the_same_part(exported, tokens_of, probe, view, prepare, group):
    ranges = calibrate(graph.load(exported["bert"]), tokens_of("bert", 40), method="minmax")
    model, plain = graph.load(exported["bert"]), graph.load(exported["bert"])
    prepare(model)
    view(model, ranges)
    assert without(model, group) == without(plain, group) == 2
    np.testing.assert_allclose(run(model, probe("bert")), run(plain, probe("bert")), atol=0.5)
    products = Counter(node.op_type for node in model.graph)["MatMul"]
    assert products == Counter(node.op_type for node in plain.graph)["MatMul"]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("group", ["attention", "feed_forward"])
def test_smoothed_graphs_lose_the_same_part(exported, tokens_of, probe, view, group):
    """Smoothing puts a Mul before the residual sums that read a LayerNorm."""
    model = graph.load(exported["bert"])
    assert smooth(model, {fold.name: [1] * len(fold.weights[0]) for fold in folds(model)}) > 3
    ranges = calibrate(model.clone(), tokens_of("bert", 40), method="minmax") if view is not fp16 else {}
    first_token(model)
    view(model, ranges)
    assert without(model, group) == 2
    assert np.isfinite(run(model, probe("bert"))).all()


def what_runs(file):
    """Return the numbers of LayerNorms and Gemms that ONNX Runtime runs after it merged equal nodes."""
    types = [node.op_type for node in optimised(file).graph]
    return {"embedding": sum(kind in NORMS for kind in types), "head": types.count("Gemm") + types.count("FusedGemm")}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", ["embedding", "head"])
def test_a_repeated_part_runs_more_often_and_changes_no_logit(exported, probe, tmp_path, kind, group):
    model = graph.load(exported[kind])
    assert repeated(model, group, 3) > 3
    np.testing.assert_array_equal(run(model, probe(kind)), run(graph.load(exported[kind]), probe(kind)))
    graph.save(model, tmp_path / "more.onnx")
    before, after = what_runs(exported[kind]), what_runs(tmp_path / "more.onnx")
    each = {"embedding": 1, "head": 2}[group]  # a LayerNorm; two linear layers
    assert after == before | {group: before[group] + 3 * each}


def test_copies_of_the_embedding_read_the_rows_in_another_order(exported, probe):
    model = graph.load(exported["distilbert"])
    repeated(model, "embedding", 2)
    batch = probe("distilbert")
    norm = next(node for node in graph.nodes(model, "LayerNormalization"))
    names = [str(norm.outputs[0].name), *(str(value.name) for value in model.graph.outputs[1:])]

    session = open_session(graph.with_outputs(model, names))
    first, once, twice = session.run(None, batch)
    np.testing.assert_array_equal(once, np.roll(first, -1, axis=0))
    np.testing.assert_array_equal(twice, np.roll(first, -2, axis=0))


def test_a_part_without_a_residual_input_is_refused(exported):
    model = graph.load(exported["distilbert"])
    norm = list(graph.nodes(model, "LayerNormalization"))[1]
    add = norm.inputs[0].producer()
    norm.replace_input_with(0, add.inputs[0])
    with pytest.raises(InputError, match="sa_layer_norm: this LayerNorm does not normalise a sum"):
        without(model, "attention")
