"""The graph without padding gives the logits of its model, with the plugins of plugin_reference."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from toolchain import graph
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.graph.encoder import parse_encoder, plugin_ranges, tensor_names
from toolchain.graph.plugin_graph import QKV, SKIP_NORM, check_packable, interleave_heads, pack_batch, packed_graph
from toolchain.int8.calibrate import collect
from toolchain.runtimes.ort import open_session

KINDS = ["distilbert", "bert", "roberta"]
VERSIONS = {QKV: "5", SKIP_NORM: "6"}


@pytest.fixture(scope="module")
def plugins(by_path):
    return by_path("plugin_reference")


@pytest.fixture(scope="module")
def sized(exported, checkpoints, tiny, tmp_path_factory):
    """Return the checkpoint's folder and its graph's file, for an architecture with two heads of a size."""
    made = {(kind, 32): (folder, exported[kind]) for kind, folder in checkpoints.items()}

    def make(kind, head_size=32):
        if (kind, head_size) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}{head_size}")
            other = ("hidden_size", "num_attention_heads", "num_hidden_layers")
            names = ("dim", "n_heads", "n_layers") if kind == "distilbert" else other
            sizes = dict(zip(names, (2 * head_size, 2, 1), strict=True))
            made[kind, head_size] = folder, tiny.export_checkpoint(folder, kind, **sizes)
        return made[kind, head_size]

    return make


@pytest.fixture(scope="module")
def run(plugins):
    """Return tensor name -> array of a packed graph on a padded batch, for these outputs."""

    def evaluate(model, batch, outputs=("logits",)):
        known = {value.name: value for node in model.graph for value in node.outputs}
        model.graph.outputs[:] = [known[name] for name in outputs]
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        results = ReferenceEvaluator(proto, new_ops=plugins.OPS).run(None, pack_batch(batch))
        return dict(zip(outputs, results, strict=True))

    return evaluate


def plain(encoder, **changes):
    settings = {"dtype": "float32", "attention_type": 0, "norm_type": 0, "versions": VERSIONS} | changes
    return packed_graph(encoder, **settings)


@pytest.mark.parametrize(
    ("kind", "head_size"),
    [
        *((kind, 32) for kind in KINDS),
        *(pytest.param(kind, 64, marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_logits_are_those_of_the_model(sized, run, random_batch, kind, head_size):
    import torch
    from transformers import AutoModelForSequenceClassification

    folder, file = sized(kind, head_size)
    batch = random_batch(kind, 7, 33)
    assert len(set(batch["attention_mask"].sum(axis=1))) > 3
    found = run(plain(parse_encoder(graph.load(file))), batch)["logits"]
    np.testing.assert_allclose(found, open_session(file).run(None, batch)[0], atol=1e-3)
    original = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = original(**{name: torch.from_numpy(array).long() for name, array in batch.items()}).logits
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


@pytest.mark.parametrize("norm_type", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_float16_graph_is_typed_and_near_float32(sized, run, random_batch, kind, norm_type):
    _, file = sized(kind, 32)
    batch = random_batch(kind, 7, 33)
    typed = plain(parse_encoder(graph.load(file)), dtype="float16", attention_type=1, norm_type=norm_type)
    expected = open_session(file).run(None, batch)[0]
    assert abs(run(typed, batch)["logits"] - expected).max() < 0.01 * max(1, abs(expected).max())
    half, full = ir.DataType.FLOAT16, ir.DataType.FLOAT
    assert {node.inputs[1].dtype for node in graph.nodes(typed, "Conv")} == {half}
    assert {node.inputs[0].dtype for node in graph.nodes(typed, QKV)} == {half}
    first, *others = graph.nodes(typed, SKIP_NORM)
    assert (first.inputs[0].dtype, first.attributes["type_id"].as_int()) == (full, 0)
    assert {node.inputs[0].dtype for node in others} == {half if norm_type else full}
    assert {node.inputs[0].dtype for node in graph.nodes(typed, "Gemm")} == {full}


@pytest.mark.parametrize("versions", [VERSIONS, {QKV: "2", SKIP_NORM: "2"}])
def test_plugin_nodes_have_the_attributes_that_tensorrt_needs(sized, versions):
    model = plain(parse_encoder(graph.load(sized("bert", 32)[1])), attention_type=2, norm_type=1, versions=versions)
    attention = next(graph.nodes(model, QKV))
    values = {name: attribute.value for name, attribute in attention.attributes.items()}
    assert values.pop("dq_probs") == pytest.approx(1 / 127)
    assert values == {
        "plugin_version": versions[QKV],
        "plugin_namespace": "",
        "type_id": 2,
        "hidden_size": 64,
        "num_heads": 2,
        "has_mask": 1,
        "var_seqlen": 1,
        "use_int8_scale_max": 1,
    }
    assert [value.name for value in attention.inputs[2:]] == ["cu_seqlens", "max_seqlen"]
    norms = list(graph.nodes(model, SKIP_NORM))
    assert [node.attributes["type_id"].as_int() for node in norms] == [0, 1, 1, 1, 1]
    assert {node.attributes["plugin_version"].as_string() for node in norms} == {versions[SKIP_NORM]}
    plugins = {*graph.nodes(model, QKV, SKIP_NORM)}
    assert {node.domain for node in plugins} == {"trt.plugins"}  # onnx.checker ignores this domain
    assert all(node.outputs[0].dtype and node.outputs[0].shape for node in plugins)


def test_interleaved_heads_compute_what_separate_layers_compute(plugins):
    generator = np.random.default_rng(3)
    x, heads, size = generator.normal(size=(11, 64)).astype(np.float32), 2, 32
    weights = generator.normal(size=(3, 64, 64)).astype(np.float32) / 8
    biases = generator.normal(size=(3, 64)).astype(np.float32)
    qkv = x @ interleave_heads(*(weight.T for weight in weights), heads).T + interleave_heads(*biases, heads)
    offsets = np.array([0, 4, 11])
    found = plugins.qkv_varlen(qkv, offsets, heads, size)
    query, key, value = (x @ weight + bias for weight, bias in zip(weights, biases, strict=True))
    for start, end in ((0, 4), (4, 11)):
        for head in range(heads):
            part = np.s_[start:end, head * size : (head + 1) * size]
            scores = np.exp(query[part] @ key[part].T / np.sqrt(size))
            expected = scores / scores.sum(axis=1, keepdims=True) @ value[part]
            np.testing.assert_allclose(found[part], expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_of_the_original_fit_the_packed_graph(sized, run, tokens_of, kind):
    model = graph.load(sized(kind, 32)[1])
    tokens = tokens_of(kind, 8)
    ranges = {name: histogram.range("minmax") for name, histogram in collect(model, tokens).items()}
    encoder = parse_encoder(model)
    expected = plugin_ranges(encoder, ranges)
    values = run(plain(encoder), tokens.batch(np.arange(8)), tuple(expected))
    assert len(expected) == 2 * 5  # input, qkv, context, normed and activated of each layer
    assert {name: abs(value).max() for name, value in values.items()} == pytest.approx(expected, rel=1e-4)


def test_the_graph_has_every_tensor_name(sized):
    encoder = parse_encoder(graph.load(sized("bert", 32)[1]))
    for changes in ({}, {"dtype": "float16", "attention_type": 1}):
        model = plain(encoder, **changes)
        names = [value.name for node in model.graph for value in node.outputs]
        assert set(tensor_names(encoder)) <= set(names)
        assert len(names) == len(set(names))


def test_a_packed_batch_has_no_padding():
    batch = {
        "input_ids": np.array([[1, 2, 0], [3, 4, 5], [6, 0, 0]], np.int32),
        "attention_mask": np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0]], np.int32),
        "token_type_ids": np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.int32),
    }
    made = pack_batch(batch)
    assert {name: array.tolist() for name, array in made.items() if name != "max_seqlen"} == {
        "input_ids": [1, 2, 3, 4, 5, 6],
        "position_ids": [0, 1, 0, 1, 2, 0],
        "token_type_ids": [0, 1, 0, 0, 1, 1],
        "cu_seqlens": [0, 2, 5, 6],
    }
    assert made["max_seqlen"].shape == (3,)
    assert {array.dtype for array in made.values()} == {np.dtype(np.int32)}
    del batch["token_type_ids"]
    assert "token_type_ids" not in pack_batch(batch)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([0, 1, 1], "has a mask other than 1s followed by 0s"),
        ([1, 0, 1], "has a mask other than 1s followed by 0s"),
        ([0, 0, 0], "has no token"),
        ([2, 0, 0], "has a mask other than 1s followed by 0s"),
    ],
)
def test_a_mask_that_is_not_padded_on_the_right_is_refused(row, why):
    mask = np.array([[1, 1, 0], row], np.int32)
    with pytest.raises(InputError, match=f"row 1 of the batch .*{why}"):
        pack_batch({"input_ids": np.ones((2, 3), np.int32), "attention_mask": mask})


def test_a_model_precision_or_gpu_without_a_kernel_is_refused(sized):
    encoder = parse_encoder(graph.load(sized("bert", 32)[1]))
    check_packable(encoder, max_length=512, sm=75, precision="int8")
    with pytest.raises(InputError, match=r"head size is 16.*--attention native"):
        check_packable(replace(encoder, head_size=16), max_length=128, sm=75, precision="fp16")
    with pytest.raises(InputError, match="513 tokens; the plugin accepts up to 512"):
        check_packable(encoder, max_length=513, sm=75, precision="fp16")
    short = replace(encoder, positions=encoder.positions[:128])
    with pytest.raises(InputError, match="129 tokens; the plugin accepts up to 128"):
        check_packable(short, max_length=129, sm=75, precision="fp16")
    with pytest.raises(UsageError, match="not fp32"):
        check_packable(encoder, max_length=128, sm=75, precision="fp32")
    with pytest.raises(MachineError, match=r"capability 7\.0"):
        check_packable(encoder, max_length=128, sm=70, precision="fp16")


def test_contradicting_types_and_overflowing_weights_are_refused(sized):
    encoder = parse_encoder(graph.load(sized("bert", 32)[1]))
    with pytest.raises(ValueError, match="float16 does not go with attention of type 2"):
        plain(encoder, dtype="float16", attention_type=2)
    with pytest.raises(
        InputError, match=r"embeddings\.words\.weight: the constant has a value outside float16's range"
    ):
        plain(replace(encoder, words=encoder.words * 1e6), dtype="float16", attention_type=1)
