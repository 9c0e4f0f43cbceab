"""What is not a text classifier is refused for what it is, before anything is built of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.architectures import edit, make, new_model, rewrite_weights
from toolchain.checkpoint.checks import KINDS
from toolchain.checkpoint.model import find_model, load_model
from toolchain.errors import InputError, ToolchainError


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return make(tmp_path / "model", "Bert")


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("adapter_config.json", "a PEFT adapter.*merge_and_unload"),
        ("config_setfit.json", "a SetFit model"),
        ("model_head.pkl", "a SetFit model"),
        ("onnx/model.onnx", None),
        ("model.onnx", "a model in ONNX"),
        ("bundle.json", "a bundle"),
        ("model.gguf", "a model in GGUF"),
        ("checkpoint-500/config.json", "a folder with several checkpoints"),
        ("snapshots/4f6a/config.json", "a folder of the hub's cache"),
    ],
)
def test_a_folder_of_another_kind_is_named(file: str, what: str | None, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / file).write_text("{}")
    with pytest.raises(InputError, match=what or "has no config.json"):
        find_model(str(tmp_path))
    assert what is None or any((tmp_path / kind.file).exists() or "*" in kind.file for kind in KINDS)


@pytest.mark.parametrize("file", ["modules.json", "model.onnx", "tf_model.h5"])
def test_a_classifier_may_have_files_of_another_kind_beside_it(file: str, bert: Path) -> None:
    (bert / file).write_text("{}")
    assert find_model(str(bert)).facts.labels == ("negative", "positive")


@pytest.mark.parametrize("file", ["tf_model.h5", "flax_model.msgpack", "rust.onnx", "checkpoint-5/config.json"])
def test_another_model_with_files_of_another_kind_beside_it_is_named_for_its_head(file: str, bert: Path) -> None:
    (edit(bert, architectures=["BertForMaskedLM"]) / file).parent.mkdir(exist_ok=True)
    (bert / file).write_text("{}")
    with pytest.raises(InputError, match="BertForMaskedLM, a model for masked language modelling"):
        load_model(find_model(str(bert)))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_that_are_stored_quantized_are_refused_without_a_word_of_config_json(kind: Any, bert: Path) -> None:
    """transformers casts them to float32, and the model computes something else."""
    name = "bert.encoder.layer.0.attention.self.query.weight"
    folder = rewrite_weights(bert, lambda weights: weights.update({name: (50 * weights[name]).to(kind)}))
    with pytest.raises(InputError, match=rf"{name} is stored as \w+, so the weights are quantized"):
        load_model(find_model(str(folder)))


@pytest.mark.parametrize("file", ["adapter_config.json", "model_head.pkl"])
def test_weights_beside_an_adapter_or_another_head_are_not_taken(file: str, bert: Path) -> None:
    (bert / file).write_text("{}")
    with pytest.raises(InputError, match="this is"):
        find_model(str(bert))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("BertForQuestionAnswering", "question answering"),
        ("BertForMultipleChoice", "multiple choice"),
        ("BertForNextSentencePrediction", "next sentence prediction"),
        ("BertForMaskedLM", "masked language modelling"),
        ("BertLMHeadModel", "causal language modelling"),
        ("GPT2LMHeadModel", "causal language modelling"),
        ("BartForConditionalGeneration", "language modelling"),
        ("BertModel", "an encoder without a head"),
        ("BertForSentiment", "which transformers does not have"),
        ("BertMeanPoolingForSequenceClassification", "which transformers does not have"),
        ("Wav2Vec2ForSequenceClassification", "a model for audio classification"),
    ],
)
def test_the_architecture_decides_and_not_the_weights(name: str, what: str, bert: Path) -> None:
    """The weights are those of a text classifier in each case, so that they load without a word."""
    with pytest.raises(InputError, match=rf"its architecture is {name}, .*{what}"):
        load_model(find_model(str(edit(bert, architectures=[name]))))


@pytest.mark.parametrize("name", ["RobertaForSequenceClassification", "TFBertForSequenceClassification", None])
def test_a_classifier_of_kin_or_without_a_name_is_taken(name: str | None, bert: Path) -> None:
    model = load_model(find_model(str(edit(bert, architectures=[name] if name else None))))
    assert type(model).__name__ == "BertForSequenceClassification"


def test_labels_of_tokens_are_refused_where_no_architecture_is_named(tmp_path: Path) -> None:
    folder = edit(make(tmp_path / "model", "Bert", labels=("O", "B-PER", "I-PER")), architectures=None)
    with pytest.raises(InputError, match="its labels O, B-PER, I-PER look like labels of tokens"):
        load_model(find_model(str(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_labels": 3}, "num_labels is 3, but id2label has 2 names"),
        ({"id2label": {"1": "a", "2": "b"}}, "Its keys must be 0, 1, 2"),
        ({"label2id": {"positive": 0, "negative": 1}}, "positive has the index 0 in label2id, but 1 in id2label"),
        ({"problem_type": "regression"}, "problem_type is regression, but there are 2 outputs"),
        ({"id2label": {"0": "a"}, "problem_type": "single_label_classification"}, "but there is one label"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"already quantized \(gptq\)"),
        ({"id2label": {"0": "a", "1": None}}, "id2label has no name for 1"),
        ({"id2label": {"0": "a", "1": "b\ud800"}}, r"id2label has 'b\\ud800', with one half of a surrogate pair"),
        ({"label2id": ["negative", "positive"]}, "label2id is .*It must have the index of each label"),
        (
            {"problem_type": "multi_label"},
            "problem_type is 'multi_label'. It must be regression or single_label_classification",
        ),
        ({"num_labels": "two"}, "num_labels is 'two'. It must be the number of classes"),
        ({"architectures": "BertForSequenceClassification"}, "architectures is 'Bert.*, but it must be a JSON array"),
        ({"architectures": 1}, "architectures is 1, but it must be a JSON array"),
        ({"model_type": ["bert"]}, r"model_type is \['bert'\], but it must be a JSON string"),
        ({"model_type": []}, r"model_type is \[\], but it must be a JSON string"),
        ({"auto_map": 5}, "auto_map is 5, but it must be a JSON object"),
        ({"pruned_heads": [1]}, r"pruned_heads is \[1\], but it must be a JSON object"),
        ({"problem_type": ["regression"]}, r"problem_type is \['regression'\], but it must be a JSON string"),
        ({"pruned_heads": {"0": [1]}}, r"pruned_heads is \{'0': \[1\]\}"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str, bert: Path) -> None:
    with pytest.raises(InputError, match=message):
        find_model(str(edit(bert, **changes)))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=3,
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("fuzzed") / "model", "Bert")


@settings(max_examples=20)
@given(data=st.data())
def test_any_value_of_config_json_is_taken_or_refused_in_one_line(data: Any, fuzzed: Path) -> None:
    """Of each key that transformers writes, and of those that are read before it."""
    text = (fuzzed / "config.json").read_text()
    key = data.draw(st.sampled_from(sorted({*json.loads(text), "auto_map", "num_labels", "pruned_heads"})))
    (fuzzed / "config.json").write_text(json.dumps(json.loads(text) | {key: data.draw(json_values)}))
    said = ""
    try:
        assert find_model(str(fuzzed)).facts.labels
    except ToolchainError as error:
        said = str(error)
    finally:
        (fuzzed / "config.json").write_text(text)
    assert "\n" not in said


OWN_CODE = "import transformers\n\n\nclass Mine(transformers.BertForSequenceClassification):\n    pass\n"


def test_own_code_of_any_name_runs_if_it_is_trusted_and_is_never_passed_over(bert: Path) -> None:
    """transformers would load its own BERT in the place of the class that the checkpoint names."""
    (bert / "modeling_mine.py").write_text(OWN_CODE)
    edit(bert, architectures=["Mine"], auto_map={"AutoModelForSequenceClassification": "modeling_mine.Mine"})
    with pytest.raises(InputError, match="Read the code, and add --trust-remote-code if"):
        load_model(find_model(str(bert)))
    assert type(load_model(find_model(str(bert), trust_remote_code=True))).__name__ == "Mine"


def test_own_code_beside_a_class_of_transformers_is_said_not_to_run(bert: Path, caplog: Any) -> None:
    auto_map = {"AutoModelForSequenceClassification": "modeling_bert.BertForSequenceClassification"}
    assert load_model(find_model(str(edit(bert, auto_map=auto_map)))).__module__.startswith("transformers.models.bert")
    assert "is run. To run its own code, add" in caplog.text


@pytest.mark.parametrize("label2id", [{"LABEL_0": 0, "LABEL_1": 1}, {}, {"negative": "0"}])
def test_a_label2id_that_says_nothing_else_is_taken(label2id: dict[str, Any], bert: Path) -> None:
    assert find_model(str(edit(bert, label2id=label2id))).labels == ["negative", "positive"]


@pytest.mark.parametrize("id2label", [{"0": "LABEL_0", "1": "LABEL_1"}, None])
def test_names_in_label2id_alone_are_said_not_to_be_read(id2label: Any, bert: Path, caplog: Any) -> None:
    """transformers answers LABEL_0: the names may be right, or left over from another model."""
    edit(bert, id2label=id2label, label2id={"bad": 0, "good": 1})
    assert find_model(str(bert)).labels == ["LABEL_0", "LABEL_1"]
    assert "label2id has the names bad, good, but id2label" in caplog.text
    assert "write them into id2label" in caplog.text


def test_labels_that_only_label2id_counts_are_refused_and_not_taken_for_two(bert: Path) -> None:
    edit(bert, id2label=None, label2id={"bad": 0, "fair": 1, "good": 2})
    with pytest.raises(
        InputError, match=r"label2id has the names bad, fair, good, but id2label is missing\. Add id2label"
    ):
        find_model(str(bert))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("bert.encoder.layer.0.attention.self.distance_embedding.weight", "lacks relative positions"),
        ("bert.encoder.layer.1.attention.self.query.lora_A.default.weight", "Merge the LoRA adapter"),
        ("bert.encoder.layer.0.output.dense.weight_scale", "from before the quantization"),
        ("lm_head.decoder.weight", "--ignore-unused"),
    ],
)
def test_weights_that_would_not_be_used_are_named(name: str, remedy: str, bert: Path) -> None:
    folder = rewrite_weights(bert, lambda weights: weights.update({name: torch.ones(3, 3)}))
    with pytest.raises(InputError, match=rf"would not use 1 of its weights \({name}\).*{remedy}"):
        load_model(find_model(str(folder)))
    load_model(find_model(str(folder), ignore_unused=f"nothing, {name.rpartition('.')[0]}.*"))


def test_layers_beyond_the_stated_number_are_not_said_to_be_needless(bert: Path) -> None:
    with pytest.raises(
        InputError, match=r"would not use 16 of its weights .* They belong to further layers. Write the numb"
    ):
        load_model(find_model(str(edit(bert, num_hidden_layers=1))))


def test_the_option_is_one_of_build_and_eval(bert: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from toolchain.cli import main

    monkeypatch.chdir(tmp_path)
    rewrite_weights(bert, lambda weights: weights.update({"lm_head.weight": torch.ones(3, 3)}))
    command = ["build", "-m", str(bert), "--task", "sst2", "--precision", "fp32", "--dry-run"]
    assert main(command) == 1
    assert "would not use 1 of its weights (lm_head.weight)" in capsys.readouterr().err
    assert main([*command, "--ignore-unused", "lm_head.*"]) == 0


def test_the_pooler_that_a_class_never_used_is_taken(tmp_path: Path) -> None:
    """Checkpoints of RoBERTa classifiers from before transformers 4 have one."""
    folder = make(tmp_path / "model", "Roberta")
    pooler = {"roberta.pooler.dense.weight": torch.ones(32, 32), "roberta.pooler.dense.bias": torch.ones(32)}
    rewrite_weights(folder, lambda weights: weights.update(pooler))
    assert not any("pooler" in name for name in load_model(find_model(str(folder))).state_dict())


NEO = {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "bos_token_id": 2, "eos_token_id": 3}


@pytest.mark.parametrize(("kind", "changes", "layer"), [("GPT2", {}, "attn"), ("GPTNeo", NEO, "attn.attention")])
def test_buffers_that_transformers_now_computes_are_passed_over(
    kind: str, changes: dict[str, Any], layer: str, tmp_path: Path
) -> None:
    """Checkpoints of such classifiers of an older transformers have both."""
    folder = make(tmp_path / "model", kind, **changes)
    trained = load_model(find_model(str(folder))).state_dict()
    old = {"masked_bias": torch.tensor(-1e4), "bias": torch.ones(1, 1, 64, 64).tril().bool()}
    old = {f"transformer.h.0.{layer}.{name}": value for name, value in old.items()}
    rewrite_weights(folder, lambda weights: weights.update(old))
    found = load_model(find_model(str(folder))).state_dict()
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[name], trained[name]) for name in trained)
    rewrite_weights(folder, lambda weights: weights.update({"transformer.h.0.attn.scores.bias": torch.ones(3)}))
    with pytest.raises(InputError, match=r"would not use 1 of its weights \(transformer\.h\.0\.attn\.scores\.bias\)"):
        load_model(find_model(str(folder)))


def test_a_named_entity_checkpoint_with_a_pooler_is_taken_for_tags(tmp_path: Path) -> None:
    model = new_model("Bert", head="ForTokenClassification", labels=("O", "B-PER", "I-PER"))
    folder = make(tmp_path / "model", "Bert", made=model)
    pooler = {"bert.pooler.dense.weight": torch.ones(32, 32), "bert.pooler.dense.bias": torch.ones(32)}
    rewrite_weights(folder, lambda weights: weights.update(pooler))
    source = find_model(str(folder))
    assert (type(load_model(source)).__name__, source.heads) == ("BertForTokenClassification", ("tokens",))
