"""A checkpoint that transformers does not load is refused with the file that is at fault and the way on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.architectures import edit, make, rewrite_weights
from toolchain.checkpoint.model import find_model, load_model, load_tokenizer
from toolchain.errors import InputError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4f6a\nsize 267832558\n"


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return make(tmp_path / "model", "Bert")


def to_shards(folder: Path) -> Path:
    """Divide the weights into two files and an index."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(weights)}
    for file in set(places.values()):
        part = {name: tensor for name, tensor in weights.items() if places[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def without_shard(folder: Path) -> None:
    (to_shards(folder) / "model-00002-of-00002.safetensors").unlink()


def with_torn_index(folder: Path) -> None:
    (to_shards(folder) / "model.safetensors.index.json").write_text('{"weight_map"')


def with_lost_link(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/4f6a")


def with_half_the_bytes(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:4096])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_shard, r"index\.json names model-00002-of-00002\.safetensors, which is missing\. Get"),
        (with_torn_index, r"index\.json does not say which weight is in which file\. Get"),
        (with_lost_link, r"model\.safetensors is a link to a file that is missing\. Get"),
        (with_half_the_bytes, r"model\.safetensors is truncated, or not in safetensors' format\. Get"),
        (lambda folder: (folder / "model.safetensors").write_text(POINTER), r"only a Git LFS pointer.*`git lfs pull`"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "model.fp16.safetensors"),
            r"no file named model\.safetensors or .*, only model\.fp16\.safetensors\. Get",
        ),
        (lambda folder: edit(folder, model_type=None), 'model_type is missing, .*Set model_type to "bert"'),
        (lambda folder: edit(folder, model_type=None, architectures=None), r"config\.json has no model_type\. Get"),
        (
            lambda folder: edit(folder, model_type="bertium", architectures=None),
            r"does not have the model type bertium\. Give",
        ),
        (lambda folder: edit(folder, hidden_act="gelu_erf"), r"transformers does not have 'gelu_erf'\."),
    ],
)
def test_the_file_at_fault_is_named(spoil: Callable[[Path], object], message: str, bert: Path) -> None:
    spoil(bert)
    with pytest.raises(
        InputError, match=rf"model: the checkpoint cannot be loaded as a classifier: .*{message}"
    ) as found:
        load_model(find_model(str(bert)))
    assert "header" not in str(found.value)


def test_a_whole_checkpoint_of_shards_is_loaded(bert: Path) -> None:
    one = load_model(find_model(str(bert))).state_dict()
    other = load_model(find_model(str(to_shards(bert)))).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_file_of_weights_beside_shards_is_named(bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (bert / "model.safetensors").read_bytes()
    (to_shards(bert) / "model.safetensors").write_bytes(whole)
    find_model(str(bert))
    assert "there are both model.safetensors, which is used, and model.safetensors.index.json" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (POINTER, r"tokenizer\.json is only a Git LFS pointer.*`git lfs pull`"),
        ('{"version": "9.0", "model": {"type": "SuperBPE"}}', r"cannot read tokenizer\.json, which is broken or of a"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_not_said_to_be_missing(text: str, message: str, bert: Path) -> None:
    (bert / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=message) as found:
        load_tokenizer(bert)
    assert "Put tokenizer.json" not in str(found.value)


@pytest.mark.parametrize("place", ["../model.safetensors", "pytorch_model-00001-of-00001.bin"])
def test_an_index_of_weights_elsewhere_or_in_pickles_is_refused(place: str, bert: Path) -> None:
    (bert / "model.safetensors").rename(bert.parent / "model.safetensors")
    (bert / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"classifier.weight": place}}))
    with pytest.raises(InputError, match=rf"index\.json names {place}, but it may only name safetensors files"):
        find_model(str(bert))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_norm_eps": "1e-12"}, r"'layer_norm_eps'.*\. Fix its config\.json, or get the checkpoint again\.$"),
        ({"num_attention_heads": 3}, r"number of attention heads \(3\)\. Fix its config\.json, or"),
    ],
)
def test_a_value_of_which_no_model_can_be_made_is_not_a_lost_head(changes: Any, message: str, bert: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_model(find_model(str(edit(bert, **changes))))


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [
        ("module.", "inside a wrapper.*Save the model in the wrapper"),
        ("_orig_mod.", "a wrapper"),
        ("net.encoder.", "a wrapper"),
        ("base_model.model.", r"peft\. Merge the adapter with merge_and_unload\(\)"),
    ],
)
def test_the_prefix_of_a_wrapper_is_named(prefix: str, advice: str, bert: Path) -> None:
    def wrap(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            weights[prefix + name] = weights.pop(name)

    rewrite_weights(bert, wrap)
    with pytest.raises(InputError, match=rf"its weights begin with '{prefix}'.*{advice}"):
        load_model(find_model(str(bert)))


@pytest.mark.parametrize(
    ("lost", "advice"),
    [
        ("bert.encoder.layer.1.output.dense.weight", "Get the checkpoint again"),
        ("classifier.weight", "Give a checkpoint that was fine-tuned"),
    ],
)
def test_a_lost_weight_is_not_a_lost_head(lost: str, advice: str, bert: Path) -> None:
    rewrite_weights(bert, lambda weights: weights.pop(lost))
    with pytest.raises(InputError, match=rf"lacks 1 weight, the first of them {lost}\. {advice}"):
        load_model(find_model(str(bert)))


@pytest.mark.parametrize("kind", ["roberta", "albert", "gpt2"])
def test_a_model_type_of_another_class_than_the_weights_is_what_to_change(kind: str, bert: Path) -> None:
    with pytest.raises(InputError) as found:
        load_model(find_model(str(edit(bert, model_type=kind))))
    assert str(found.value).endswith(
        f"config.json: model_type is {kind}, but the weights are those of BertForSequenceClassification, which "
        'architectures names. Set model_type to "bert".'
    )


def test_weights_of_neither_class_are_not_said_to_be_of_one(bert: Path) -> None:
    with pytest.raises(
        InputError, match=r"lacks .* weights, the first of them .*, but has weights that the model lacks"
    ):
        load_model(find_model(str(edit(bert, model_type="albert", architectures=["RobertaForSequenceClassification"]))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_of_one_rare_word_must_be_finite(value: float, bert: Path) -> None:
    """No built-in sentence has the word, so that all of them get an answer."""
    name = "bert.embeddings.word_embeddings.weight"
    rewrite_weights(bert, lambda weights: weights[name][70].fill_(value))
    with pytest.raises(InputError, match=rf"{name} has NaN or infinity"):
        load_model(find_model(str(bert)))
