"""`toolchain generate`: a table and JSON, and one line for each thing that cannot be used."""

import json

import pytest

from tests.generate.causal import make_causal
from tests.tiny import make_checkpoint
from toolchain.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_causal(tmp_path_factory.mktemp("lm"), "gpt2", positions=32))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(make_checkpoint(tmp_path_factory.mktemp("encoder")))


def test_prompts_of_a_table(model, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("body\na good story\nthe sea\n")
    command = ["generate", model, "--data", str(tmp_path / "in.csv"), "--text-column", "body", "--batch-size", "2"]
    assert main([*command, "--max-new-tokens", "4", "--cache", "dynamic,none", "--rounds", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [text["prompt"] for text in record["texts"]] == ["a good story", "the sea"]
    assert [run["cache"] for run in record["runs"]] == ["dynamic", "none"]
    assert main([*command, "--max-new-tokens", "4", "--cache", "none,dynamic", "--rounds", "1"]) == 0
    assert "from the number of positions," in capsys.readouterr().out


def test_the_bundle_of_an_encoder_is_a_file_of_the_wrong_kind(typed_bundles, capsys):
    assert main(["generate", str(typed_bundles["int8"]), "--prompt", "a"]) == 1
    assert "does not have a language model. Build one with `toolchain build --task lm`." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["ENCODER", "--prompt", "a"], 1, "not a causal language model: architectures is DistilBertForSequence"),
        (["MODEL"], 1, "--prompt: there is no prompt"),
        (["MODEL", "--prompt", "good", "--prompt", " "], 1, "prompt 2 is empty"),
        (["MODEL", "--prompt", "good", "--max-new-tokens", "30"], 2, "Give --max-new-tokens 29 or less"),
        (["MODEL", "--prompt", "good " * 40], 2, "Give a shorter prompt"),
        (["MODEL", "--prompt", "good", "--cache", "dynamc"], 2, "Did you mean dynamic?"),
        (["MODEL", "--prompt", "good", "--batch-size", "0"], 2, "--batch-size 0: too small"),
        (["MODEL", "--prompt", "good", "--data", "x.csv"], 2, "--prompt is given too"),
        (["MODEL", "--prompt", "good", "--text-column", "body"], 2, "--text-column body: there is no table"),
        (["MODEL", "--data", "x.csv"], 1, "x.csv: no such file"),
        (["nowhere/to/be/found", "--prompt", "good"], 2, "no such folder"),
    ],
)
def test_what_cannot_be_used_is_one_line(words, code, said, model, encoder, capsys):
    words = [{"MODEL": model, "ENCODER": encoder}.get(word, word) for word in words]
    assert main(["generate", *words]) == code
    error = capsys.readouterr().err
    assert said in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
