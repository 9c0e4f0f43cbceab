"""A bundle's tokenizer gives transformers' ids without transformers, and a bundle runs without it and torch."""

import json
import shutil
import subprocess
import sys

import pytest

from toolchain.checkpoint.model import load_tokenizer
from toolchain.checkpoint.stored_tokenizer import OWN, StoredTokenizer, store
from toolchain.checkpoint.tokenize import TextEncoder
from toolchain.data.probes import long_text, probe_texts
from toolchain.errors import InputError

ALL = ("input_ids", "attention_mask", "token_type_ids")


def read(tokenizer, folder):
    record = store(tokenizer, folder)
    files = {file.name: file.read_bytes() for file in folder.glob("*.json")}
    return record, StoredTokenizer(record, files, folder)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["distilbert", "roberta"])
def test_the_ids_are_those_of_transformers(checkpoints, tmp_path, kind, side):
    folder = shutil.copytree(checkpoints[kind], tmp_path / kind)
    tokenizer = load_tokenizer(folder)
    tokenizer.truncation_side = side
    _, stored = read(tokenizer, folder)
    for columns in (1, 2):
        special = tuple(f"a {token} b" for token in tokenizer.all_special_tokens[:columns])
        texts = [*probe_texts(columns), ("",) * columns, long_text(columns, 16), special]
        wanted, found = (TextEncoder(one, max_length=16, inputs=ALL)(texts) for one in (tokenizer, stored))
        assert found == wanted
    assert (stored.unk_token_id, len(stored.get_vocab())) == (tokenizer.unk_token_id, len(tokenizer.get_vocab()))
    assert stored.num_special_tokens_to_add(pair=True) == tokenizer.num_special_tokens_to_add(pair=True)


def test_a_tokenizer_that_transformers_changes_has_a_file_of_its_own(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["distilbert"], tmp_path / "one")
    tokenizer = load_tokenizer(folder)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(content, indent=1))
    assert read(tokenizer, folder)[0]["file"] == "tokenizer.json"
    assert not (folder / OWN).exists()
    (folder / "tokenizer.json").write_text(json.dumps({**content, "normalizer": None}))
    record, stored = read(tokenizer, folder)
    assert record["file"] == OWN
    assert stored.backend_tokenizer.encode("A b").ids == tokenizer.backend_tokenizer.encode("A b").ids


def test_a_missing_or_broken_file_is_an_error(checkpoints, tmp_path):
    record = store(load_tokenizer(checkpoints["bert"]), shutil.copytree(checkpoints["bert"], tmp_path / "b"))
    with pytest.raises(InputError, match="the bundle has no tokenizer"):
        StoredTokenizer(record, {}, tmp_path)
    with pytest.raises(InputError, match="not a tokenizer"):
        StoredTokenizer(record, {record["file"]: b"{}"}, tmp_path)


# Loads and serves a bundle where only the dependencies of a slim install can be imported.
SCRIPT = """
import asyncio, sys
from pathlib import Path

absent = "torch transformers datasets evaluate matplotlib pandas pyarrow scipy sklearn safetensors huggingface_hub"
sys.modules.update(dict.fromkeys([*absent.split(), "onnxscript"]))
import toolchain
from toolchain.serve.service import open_service

with toolchain.load(sys.argv[1]) as classify:
    one = classify("a b")

async def serve():
    async with open_service(Path(sys.argv[1]), name="m", backend="ort") as service:
        assert service.shown
        return await service.classify([("a b",)], list)

print(one == asyncio.run(serve())[0] or one)
"""


def test_a_bundle_runs_and_is_served_without_torch_and_transformers(typed_bundles):
    # The processes of the fork server have torch, so this one is started anew.
    command = [sys.executable, "-c", SCRIPT, str(typed_bundles["int8"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert "label" in done.stdout or done.stdout == "True\n"
