"""What is read of a checkpoint equals what transformers does with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.architectures import OFFSET, edit, make, new_model, rewrite_weights
from toolchain.checkpoint import facts
from toolchain.checkpoint.facts import Facts
from toolchain.checkpoint.model import find_model, load_model, load_tokenizer
from toolchain.errors import InputError, UsageError

TABLES = ("Bert", "Albert", "Electra", "DistilBert", "GPT2", "ConvBert", *OFFSET)


def read(folder: Path, **choices: Any) -> Facts:
    return find_model(str(folder), **choices).facts


def logits(folder: Path, texts: list[str]) -> Any:
    """The logits that transformers gives for texts, padded to the longest."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**batch).logits.numpy()


@pytest.mark.parametrize("kind", TABLES)
def test_the_longest_row_is_the_longest_that_transformers_runs(kind: str, tmp_path: Path) -> None:
    longest = read(make(tmp_path / "model", kind)).longest
    model = new_model(kind)
    with torch.inference_mode():
        assert model(torch.full((1, int(longest or 0)), 7)).logits.shape == (1, 2)
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, int(longest or 0) + 1), 7))


@pytest.mark.parametrize(("kind", "longest"), [("Llama", 64), ("ModernBert", 64), ("DebertaV2", 64)])
def test_without_a_table_the_stated_length_is_the_limit(kind: str, longest: int, tmp_path: Path) -> None:
    assert read(make(tmp_path / "model", kind)).longest == longest


@pytest.mark.parametrize(
    ("kind", "changes", "types"),
    [
        ("Bert", {}, 2),
        ("Bert", {"type_vocab_size": 5}, 5),
        ("Roberta", {"type_vocab_size": 1}, None),
        ("DebertaV2", {"type_vocab_size": 0}, None),
        ("DistilBert", {}, None),
    ],
)
def test_token_types_are_an_input_of_models_with_several(
    kind: str, changes: dict[str, int], types: int | None, tmp_path: Path
) -> None:
    values = read(make(tmp_path / "model", kind, **changes)).values
    assert values["attention_mask"] == 2
    assert values.get("token_type_ids") == types


def test_token_types_that_the_tokenizer_leaves_out_are_not_an_input(tmp_path: Path) -> None:
    folder = edit(make(tmp_path / "model", "Bert"), "tokenizer_config.json", model_input_names=["input_ids"])
    assert "token_type_ids" not in read(folder).values


def depending_on_padding(folder: Path, kind: str) -> Path:
    """A checkpoint of which one row gets other logits beside a longer one, as transformers itself shows."""
    model = new_model(kind)
    if kind == "MobileBert":  # its neighbour's embedding is part of a token's, and here padding has one
        model.mobilebert.embeddings.word_embeddings.weight.data[0] = 1.0
    return make(folder, kind, made=model)


@pytest.mark.parametrize(
    ("kind", "equal"),
    [("FNet", True), ("ConvBert", True), ("MobileBert", True), ("Bert", False), ("GPT2", False), ("Mixtral", False)],
)
def test_a_model_whose_answers_depend_on_padding_is_found(kind: str, equal: bool, tmp_path: Path) -> None:
    folder = depending_on_padding(tmp_path / "model", kind)
    both = logits(folder, ["a good film", "a good film and a bad film and a dull film"])
    assert bool(np.abs(both[0] - logits(folder, ["a good film"])[0]).max() > 1e-4) == equal
    assert read(folder).equal_length == equal


class Company(torch.nn.Module):
    """A model in whose answers the other rows of a batch have a part."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config = inner, inner.config

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
        found = self.inner(input_ids, attention_mask, token_type_ids)
        found.logits = found.logits + found.logits.mean(0)
        return found


def test_a_model_whose_answers_depend_on_other_rows_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    folder = make(tmp_path / "model", "Bert")
    monkeypatch.setattr(facts, "load_model", lambda source: Company(new_model("Bert")))
    with pytest.raises(InputError, match="depend on the other texts in its batch"):
        read(folder)


def test_a_model_that_is_random_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    folder = make(tmp_path / "model", "Bert")
    monkeypatch.setattr(facts, "load_model", lambda source: new_model("Bert").train())
    with pytest.raises(InputError, match="other logits for the same text each time"):
        read(folder)


def test_the_padding_id_is_the_models(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "GPT2", pad_token_id=7)
    assert read(folder).pad_id == 7
    edit(folder, "tokenizer_config.json", pad_token=None)
    assert load_tokenizer(folder).pad_token_id is None
    assert read(folder).pad_id == 7
    with pytest.raises(UsageError, match="neither the model nor the tokenizer has a padding token"):
        read(edit(folder, pad_token_id=None))


def test_a_decoder_without_a_padding_id_is_refused_for_that_reason(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"gpt2 cannot run a batch of 2 rows .* by pad_token_id, which config.json lacks"
    ):
        read(make(tmp_path / "model", "GPT2", pad_token_id=None))


def test_the_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"its tokenizer has the id \d+ \('##er'\), but its embedding table has only 80 rows"
    ):
        read(make(tmp_path / "model", "Bert", vocab_size=80))


def test_an_added_token_without_an_embedding_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "Bert")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<user>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=r"has the id \d+ \('<user>'\)"):
        read(folder)


def test_a_stray_id_is_said_and_not_refused(tmp_path: Path, caplog: Any) -> None:
    folder = make(tmp_path / "model", "Bert")
    model = new_model("Bert", vocab_size=new_model("Bert").config.vocab_size + 1)
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["model"]["vocab"]["zzz"] = model.config.vocab_size + 1
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    model.save_pretrained(folder)
    assert read(folder).values["input_ids"] == model.config.vocab_size
    assert "1 tokens have no row" in caplog.text


def test_a_tokenizer_class_that_makes_other_ids_than_tokenizer_json_is_said(tmp_path: Path, caplog: Any) -> None:
    folder = make(tmp_path / "model", "Bert", vocab_size=new_model("Bert").config.vocab_size + 8)
    read(folder)
    assert "other token ids" not in caplog.text
    read(edit(folder, "tokenizer_config.json", tokenizer_class="RobertaTokenizer"))
    assert "transformers (RobertaTokenizer) gives other token ids than tokenizer.json alone for 5 of 5" in caplog.text


def test_a_tokenizer_that_fails_on_unknown_words_says_why(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "Bert")
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["model"]["vocab"]["[OTHER]"] = tokens["model"]["vocab"].pop("[UNK]")
    tokens["added_tokens"] = [one for one in tokens["added_tokens"] if one["content"] != "[UNK]"]
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(
        InputError, match=r"cannot tokenize plain texts \(.*\[UNK\] token .*\)\. Fix the tokenizer's files, or"
    ):
        read(edit(folder, "tokenizer_config.json", unk_token=None))


def test_a_model_that_counts_end_tokens_over_the_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bart counts end tokens over a whole batch"):
        read(make(tmp_path / "model", "Bart"))


def test_a_model_that_needs_more_than_token_ids_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    class Picture(Company):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            raise AttributeError("'NoneType' object has no attribute 'image'")

    folder = make(tmp_path / "model", "Bert")
    monkeypatch.setattr(facts, "load_model", lambda source: Picture(new_model("Bert")))
    with pytest.raises(
        InputError,
        match=r"cannot run a batch of 1 rows .* alone \(AttributeError; run again with -v for the traceback\)",
    ):
        read(folder)


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 1, 2), r"of shape \[1, 1, 2\]"), ((1, 3), "3 logits per row, but")]
)
def test_outputs_that_are_not_one_logit_for_each_label_are_refused(
    shape: tuple[int, ...], message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    class Other(Company):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            found = self.inner(input_ids, attention_mask, token_type_ids)
            found.logits = torch.zeros(shape)
            return found

    folder = make(tmp_path / "model", "Bert")
    monkeypatch.setattr(facts, "load_model", lambda source: Other(new_model("Bert")))
    with pytest.raises(InputError, match=message):
        read(folder)


def test_a_config_that_asks_for_tuples_is_taken(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "Bert")
    assert read(edit(folder, return_dict=False)) == read(edit(folder, return_dict=None))


def test_names_are_those_that_transformers_reads(tmp_path: Path) -> None:
    folder = edit(make(tmp_path / "model", "Bert", labels=("a", "b", "c")), id2label={"2": "z", "0": "x", "1": "y"})
    assert read(folder).labels == ("x", "y", "z")
    edit(folder, id2label=None, label2id=None, num_labels=3)
    assert read(folder).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize("where", [{"attn_implementation": "flash_attention_2"}, {"chunk_size_feed_forward": 4}])
def test_how_a_model_was_run_is_no_part_of_it(where: dict[str, Any], tmp_path: Path) -> None:
    """flash_attn is not installed here, and 4 does not divide the length of most texts."""
    folder = make(tmp_path / "model", "Bert")
    texts = ["a good film", "not very good"]
    expected = logits(folder, texts)
    model = load_model(find_model(str(edit(folder, **where))))
    with torch.inference_mode():
        found = model(**load_tokenizer(folder)(texts, padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("constant", [True, False])
def test_a_model_that_does_not_read_its_text_is_said_to(constant: bool, tmp_path: Path, caplog: Any) -> None:
    folder = make(tmp_path / "model", "Bert")
    rewrite_weights(folder, lambda weights: weights["classifier.weight"].mul_(float(not constant)))
    read(folder)
    assert ("returns the same logits for 5 different texts" in caplog.text) == constant
