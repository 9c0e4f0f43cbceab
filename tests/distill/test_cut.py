"""The cut: what it finds in models of many architectures, what it removes, and the work that it counts."""

import copy
import json

import numpy as np
import pytest
import torch
import transformers

from tests import architectures
from toolchain.checkpoint.tokenize import Tokens
from toolchain.distill.anatomy import find_anatomy
from toolchain.distill.cut import Shape, choose_layers, count_work, cut, shape_of, shapes_for_speed
from toolchain.errors import InputError, UsageError

WIDTH, LAYERS = 192, 3
FOUND = ("DistilBert", "Bert", "Roberta", "Electra", "XLMRoberta", "MPNet", "DebertaV2", "ModernBert")


def new_model(kind, layers=LAYERS):
    sizes = {"num_hidden_layers": layers, "intermediate_size": WIDTH}
    if kind == "DistilBert":
        sizes |= {"n_layers": layers, "hidden_dim": WIDTH}
    return architectures.new_model(kind, **sizes)


def tokens(rows=40):
    generator = np.random.default_rng(0)
    ids = [[7, *generator.integers(8, 60, size).tolist(), 8] for size in generator.integers(3, 12, rows)]
    pads = {"input_ids": 0, "attention_mask": 0}
    return Tokens({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}, pads)


def logits(model):
    with torch.no_grad():
        found = [model(input_ids=torch.tensor([row])).logits for row in tokens(6).columns["input_ids"]]
    return torch.cat(found)


def cut_to(model, *shapes, folder="checkpoint"):
    return cut(model, shapes, tokens(), seed=0, centred=True, folder=folder)


@pytest.mark.parametrize("kind", FOUND)
def test_a_cut_model_is_an_ordinary_one_of_its_class(kind, tmp_path):
    model = new_model(kind)
    before = logits(model)
    made = cut_to(model, Shape(2, 128))
    assert torch.equal(logits(model), before)
    assert [len(neurons) for neurons in made.neurons] == [128, 128]
    made.anatomy.model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    changes = find_anatomy(model, tmp_path).changes(made.layers, 128)
    assert {key: config[key] for key in changes} == changes
    loaded, info = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.allclose(logits(loaded.eval()), logits(made.anatomy.model), atol=1e-5)


@pytest.mark.parametrize("kind", ["Albert", "GPT2", "MobileBert"])
def test_a_model_without_such_a_feed_forward_is_refused(kind):
    with pytest.raises(InputError, match=r"checkpoint: \w+ has no feed-forward blocks that .*Choose a model"):
        find_anatomy(architectures.new_model(kind), "checkpoint")


@pytest.mark.parametrize("kind", ["DistilBert", "ModernBert"])
def test_the_neurons_without_effect_are_those_that_go(kind):
    model, generator = new_model(kind), torch.Generator().manual_seed(0)
    expected = []
    for block in find_anatomy(model, "").blocks:
        order = torch.randperm(WIDTH, generator=generator)
        with torch.no_grad():
            block.down.weight[:, order[64:]] = 0.0
        expected.append(order[:64].sort().values.tolist())
    made = cut_to(model, Shape(LAYERS, 64))
    assert made.neurons == expected
    assert torch.allclose(logits(made.anatomy.model), logits(model), atol=1e-5)


def test_neurons_that_are_constant_go_into_the_bias():
    model = new_model("Bert")
    for block in find_anatomy(model, "").blocks:
        with torch.no_grad():
            block.ups[0].weight[:64] = 0.0
    made = cut_to(model, Shape(LAYERS, 128))
    assert made.neurons == [list(range(64, WIDTH))] * LAYERS
    assert torch.allclose(logits(made.anatomy.model), logits(model), atol=1e-5)


def test_the_layer_that_does_nothing_goes_first():
    model = new_model("DistilBert", layers=4)
    layer = model.distilbert.transformer.layer[1]
    with torch.no_grad():
        for linear in (layer.attention.out_lin, layer.ffn.lin2):
            linear.weight.zero_()
            linear.bias.zero_()
    anatomy, before = find_anatomy(model, ""), logits(model)
    kept = choose_layers(anatomy, tokens(), 2, centred=True)
    assert kept[3] == (0, 2, 3)
    assert set(kept[2]) < set(kept[3])
    assert torch.equal(logits(model), before)
    assert model.config.n_layers == 4


def test_a_layer_that_no_other_can_take_the_place_of_stays():
    model = new_model("ModernBert")  # its first layer lacks a LayerNorm that the others have
    with torch.no_grad():
        for linear in (model.model.layers[0].attn.Wo, model.model.layers[0].mlp.Wo):
            linear.weight.zero_()
    assert choose_layers(find_anatomy(model, ""), tokens(), 1, centred=True)[1] == (0,)


def test_a_module_that_is_only_as_wide_as_the_feed_forward_is_not_cut():
    model = architectures.new_model("ModernBert", hidden_size=128, intermediate_size=192)  # ModernBERT-base's ratio
    layer, (block, _) = model.model.layers[0], find_anatomy(model, "").blocks
    assert layer.attn.Wqkv.out_features == layer.mlp.Wi.out_features
    assert block.ups == (layer.mlp.Wi,)
    assert cut_to(model, Shape(2, 128)).anatomy.width == 128


@pytest.mark.parametrize("kind", ["DistilBert", "Electra", "ModernBert"])
def test_the_work_of_a_shape_is_that_of_the_model_that_is_cut_to_it(kind):
    work = count_work(find_anatomy(new_model(kind), ""), 11)
    made = cut_to(new_model(kind), Shape(2, 64))
    assert work.share(Shape(2, 64)) == pytest.approx(count_work(made.anatomy, 11).total / work.total, rel=1e-9)


def test_a_feed_forward_of_half_the_models_width_is_found():
    model = new_model("Bert")
    half = copy.deepcopy(model.config)
    half.intermediate_size = half.hidden_size // 2
    found = find_anatomy(type(model)(half), "")
    assert (found.width_key, found.width) == ("intermediate_size", half.hidden_size // 2)
    assert [len(block.ups) for block in found.blocks] == [1] * len(found.blocks)


def test_a_key_of_config_json_changes_under_both_of_its_names():
    found = find_anatomy(new_model("DistilBert"), "").stated({"n_layers": 3, "num_hidden_layers": 3}, [0, 2], 128)
    assert found == {"n_layers": 2, "num_hidden_layers": 2, "hidden_dim": 128}


def test_the_work_of_a_bert_layer_is_counted_by_hand():
    hidden, length = 32, 11
    work = count_work(find_anatomy(new_model("Bert"), ""), length)
    assert work.ffn == length * 2 * hidden * WIDTH
    assert work.layer == length * (4 * hidden**2 + 2 * hidden * WIDTH) + 2 * length**2 * hidden


def test_a_target_speed_is_met_by_each_shape_and_by_none_that_is_wider():
    work = count_work(find_anatomy(new_model("Bert"), ""), 11)
    shapes = shapes_for_speed(work, 1.6)
    assert [shape.layers for shape in shapes] == sorted({shape.layers for shape in shapes}, reverse=True)
    for shape in shapes:
        assert work.share(shape) <= 1 / 1.6
        assert shape.width == WIDTH or work.share(Shape(shape.layers, shape.width + 64)) > 1 / 1.6
    with pytest.raises(
        UsageError, match=r"--target-speed 50: even a single layer with 64 feed-forward neurons only does \d"
    ):
        shapes_for_speed(work, 50.0)


def test_of_several_shapes_the_nearest_is_taken():
    model = new_model("DistilBert")
    layer = copy.deepcopy(model.distilbert.transformer.layer[1])
    with torch.no_grad():
        for linear in (layer.attention.out_lin, layer.ffn.lin2):
            linear.weight.zero_()
            linear.bias.zero_()
    model.distilbert.transformer.layer[1] = layer
    made = cut_to(model, Shape(3, 64), Shape(2, WIDTH))  # without the layer that does nothing, nothing is lost
    assert (made.layers, made.anatomy.width) == ((0, 2), WIDTH)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ffn": 0.01}, r"--ffn 0.01: 2 of 192 neurons would be left in each feed-forward block, and at least 64 are"),
        ({"layers": 7}, r"--layers 7: the model has only 3"),
        ({"ffn": 0.99}, r"nothing would be cut, because all 3 layers and all 192 neurons"),
    ],
)
def test_a_shape_that_is_none_is_refused(given, message):
    with pytest.raises(UsageError, match=message):
        shape_of(find_anatomy(new_model("Bert"), ""), **({"ffn": None, "layers": None} | given))


@pytest.mark.parametrize(("share", "width"), [(0.3, 64), (0.5, 128), (0.66, 128), (0.8, 128), (0.85, 192)])
def test_a_width_is_the_nearest_multiple_of_64(share, width):
    assert shape_of(find_anatomy(new_model("Bert"), ""), ffn=share, layers=2) == Shape(2, width)
