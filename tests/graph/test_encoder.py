"""The parsed encoder has the checkpoint's weights: put together in numpy, they give the tensors of the graph."""

import math

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file

from toolchain import graph
from toolchain.base.tensors import Range
from toolchain.errors import InputError
from toolchain.graph.encoder import parse_encoder, plugin_ranges, tensor_name, tensor_names
from toolchain.graph.fp16 import to_half
from toolchain.graph.gemms import calibrated_tensors, linear_layers
from toolchain.runtimes.ort import open_session

KINDS = ["distilbert", "bert", "roberta"]
RATIO = math.sqrt(32)  # the tiny models' head size


def normalise(x, norm):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + norm.epsilon) * norm.gamma + norm.beta


def apply(x, linear):
    return x @ linear.weight + linear.bias


def forward(encoder, ids, types):
    """One row without padding through the parts of an Encoder: the last hidden state, [tokens, hidden]."""
    x = encoder.words[ids] + encoder.positions[: len(ids)]
    x = normalise(x if encoder.types is None else x + encoder.types[types], encoder.norm)
    for layer in encoder.layers:
        heads = (
            apply(x, one).reshape(len(ids), encoder.heads, encoder.head_size).transpose(1, 0, 2)
            for one in (layer.query, layer.key, layer.value)
        )
        query, key, value = heads
        weights = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(encoder.head_size))
        context = (weights / weights.sum(axis=-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(x.shape)
        x = normalise(apply(context, layer.output) + x, layer.attention_norm)
        inner = apply(x, layer.inner)
        gelu = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = normalise(
            apply(gelu if layer.activation == "gelu" else np.maximum(inner, 0), layer.outer) + x, layer.output_norm
        )
    return x


def last_hidden(model, batch):
    name = list(graph.nodes(model, "LayerNormalization"))[-1].outputs[0].name
    return open_session(graph.with_outputs(model, [name])).run(None, batch)[0]


def assert_same_as_graph(model, batch):
    encoder, expected = parse_encoder(model), last_hidden(model, batch)
    for row, length in enumerate(batch["attention_mask"].sum(axis=1)):
        types = batch.get("token_type_ids", batch["input_ids"])[row, :length]
        found = forward(encoder, batch["input_ids"][row, :length], types)
        np.testing.assert_allclose(found, expected[row, :length], atol=1e-4)
    return encoder


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_compute_the_hidden_state(exported, random_batch, kind):
    encoder = assert_same_as_graph(graph.load(exported[kind]), random_batch(kind, 5, 19))
    assert (encoder.heads, encoder.head_size, encoder.hidden, len(encoder.layers)) == (2, 32, 64, 2)
    assert (encoder.types is not None) == (kind == "bert")
    assert encoder.head[0].op_type == "Gather"
    assert encoder.head[-1].outputs[0].name == "logits"


def test_the_query_has_the_weights_of_the_checkpoint(exported, checkpoints):
    weights = load_file(checkpoints["distilbert"] / "model.safetensors")
    query = parse_encoder(graph.load(exported["distilbert"])).layers[1].query
    np.testing.assert_allclose(
        query.weight.T, weights["distilbert.transformer.layer.1.attention.q_lin.weight"], rtol=1e-6
    )


def test_robertas_positions_begin_after_padding_and_include_its_only_type(exported, checkpoints):
    weights = load_file(checkpoints["roberta"] / "model.safetensors")
    table, types = (weights[f"roberta.embeddings.{name}_embeddings.weight"] for name in ("position", "token_type"))
    encoder = parse_encoder(graph.load(exported["roberta"]))
    np.testing.assert_array_equal(encoder.positions, table[2:] + types[0])


def scale_scores(model, factor):
    """Multiply each GEMM of query and key, as in a graph whose scale is not folded into the query."""
    for node in graph.nodes(model, "MatMul"):
        if node.name.endswith("product"):
            value = node.outputs[0]
            scaled = ir.node("Mul", [value, graph.add_initializer(model, "factor", np.float32(factor).reshape(()))])
            scaled.outputs[0].shape, scaled.outputs[0].type = value.shape, value.type
            model.graph.insert_after(node, scaled)
            value.replace_all_uses_with(scaled.outputs[0])
            scaled.replace_input_with(0, value)


def test_a_scale_after_the_gemm_goes_into_the_query(exported, random_batch):
    model = graph.load(exported["bert"])
    scale_scores(model, 0.25)
    encoder = assert_same_as_graph(model, random_batch("bert", 3, 9))
    assert encoder.layers[0].query_ratio == pytest.approx(0.25 * RATIO)


@pytest.mark.slow
def test_relu_is_recognised(tiny, tmp_path, random_batch):
    model = graph.load(tiny.export_checkpoint(tmp_path, "distilbert", activation="relu", n_layers=1))
    encoder = assert_same_as_graph(model, random_batch("distilbert", 3, 9))
    assert encoder.layers[0].activation == "relu"


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_is_a_calibrated_tensor(exported, kind):
    model = graph.load(exported[kind])
    layers = parse_encoder(model).layers
    names = {name for layer in layers for name in layer.sources.values()}
    assert names == set(calibrated_tensors(model))
    assert set(layers[0].results) == {"attended", "inner", "outer", "output"}
    assert set(layers[0].sources) == {"input", "query", "key", "value", "context", "normed", "activated"}


def test_qkv_has_the_largest_range_of_the_three_with_the_query_unscaled(exported):
    encoder = parse_encoder(graph.load(exported["bert"]))
    names = [name for layer in encoder.layers for name in layer.sources.values()]
    ranges = {name: Range(1.0, -1.0, 1.0) for name in names}
    first, second = (layer.sources for layer in encoder.layers)
    ranges[first["key"]], ranges[first["value"]] = Range(RATIO + 1, 0, 1), Range(2.0, 0, 1)
    ranges[second["input"]] = Range(7.0, 0, 1)
    found = plugin_ranges(encoder, ranges)
    assert found[tensor_name(0, "qkv")] == RATIO + 1
    assert found[tensor_name(1, "qkv")] == pytest.approx(RATIO)
    assert found[tensor_name(0, "output")] == found[tensor_name(1, "input")] == 7.0
    assert set(found) < set(tensor_names(encoder))
    assert tensor_name(1, "output") not in found
    del ranges[first["value"]]
    with pytest.raises(InputError, match=r"product2.right.*Calibrate"):
        plugin_ranges(encoder, ranges)


def first_of(model, op_type):
    return next(graph.nodes(model, op_type))


def half(model):
    to_half(model)


def quantized(model):
    node = linear_layers(model)[0]
    scale = graph.add_initializer(model, "scale", np.float32(1).reshape(()))
    pair = ir.node("QuantizeLinear", [node.inputs[0], scale])
    back = ir.node("DequantizeLinear", [pair.outputs[0], scale])
    model.graph.insert_before(node, [pair, back])
    node.replace_input_with(0, back.outputs[0])


def before_norm(model):
    """The residual of the first layer skips the LayerNorm, as in GPT."""
    norm = first_of(model, "LayerNormalization")
    add = list(graph.nodes(model, "LayerNormalization"))[1].inputs[0].producer()
    add.replace_input_with(list(add.inputs).index(norm.outputs[0]), norm.inputs[0])


def positions_in_scores(model):
    product = first_of(model, "Softmax").inputs[0].producer()
    bias = graph.add_initializer(model, "bias", np.ones((1, 2, 1, 1), np.float32))
    added = ir.node("Add", [product.inputs[0], bias])
    added.outputs[0].shape, added.outputs[0].type = product.inputs[0].shape, product.inputs[0].type
    model.graph.insert_before(product, added)
    product.replace_input_with(0, added.outputs[0])


def another_mask(model):
    """Masks the tokens instead of the padding."""
    node = first_of(model, "Sub")
    first, second = node.inputs
    node.replace_input_with(0, second)
    node.replace_input_with(1, first)


def rotated(model):
    product = next(node for node in graph.nodes(model, "MatMul") if node.name.endswith("product"))
    turned = ir.node("Mul", [product.inputs[0], graph.add_initializer(model, "turn", np.ones(32, np.float32))])
    model.graph.insert_before(product, turned)
    product.replace_input_with(0, turned.outputs[0])


def second_token(model):
    gather = parse_encoder(model).head[0]
    gather.replace_input_with(1, graph.add_initializer(model, "second", np.int64(1).reshape(())))


def mean_of_tokens(model):
    gather = parse_encoder(model).head[0]
    axes = graph.add_initializer(model, "axes", np.array([1]))
    mean = ir.node("ReduceMean", [gather.inputs[0], axes], {"keepdims": 0})
    model.graph.insert_before(gather, mean)
    gather.outputs[0].replace_all_uses_with(mean.outputs[0])
    model.graph.remove(gather, safe=True)


def another_input(model):
    model.graph.inputs.append(ir.Value(name="pixels", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1])))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (half, "a float16 graph"),
        (quantized, "Q/DQ nodes"),
        (before_norm, "layer 0: .* does not normalise the sum"),
        (positions_in_scores, "layer 0: the scores are not a GEMM"),
        (another_mask, "layer 0: .* is not a padding mask"),
        (rotated, "layer 0: attention lacks the"),
        (second_token, "the first token alone"),
        (mean_of_tokens, "the first token alone"),
        (another_input, "inputs are .*pixels"),
    ],
)
def test_another_graph_is_refused(exported, change, why):
    model = graph.load(exported["distilbert"])
    change(model)
    with pytest.raises(InputError, match=rf"^some.onnx: .*{why}.*--attention native\.$"):
        parse_encoder(model, where="some.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gelu_new", "silu"])
def test_another_activation_is_refused(tiny, tmp_path, kind):
    model = graph.load(tiny.export_checkpoint(tmp_path, "bert", hidden_act=kind, num_hidden_layers=1))
    with pytest.raises(InputError, match="not one of gelu, relu"):
        parse_encoder(model)


def test_a_tensor_of_an_unknown_role_has_no_name():
    with pytest.raises(ValueError, match="query"):
        tensor_name(0, "query")
