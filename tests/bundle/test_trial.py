"""A bundle that its user could not open is not put in place."""

import json
import shutil

import pytest

from toolchain.base.files import sha256_file
from toolchain.bundle import MANIFEST, digest_of
from toolchain.bundle.resolved_recipe import resolve
from toolchain.bundle.trial import try_bundle
from toolchain.errors import InputError
from toolchain.recipe import Recipe


@pytest.fixture(scope="module")
def resolved():
    return resolve(Recipe.make({"model": "demo", "task": "demo", "precision": "fp32"}))


@pytest.fixture
def folder(demo_bundle, tmp_path):
    return shutil.copytree(demo_bundle, tmp_path / "new")


def test_a_whole_bundle_is_accepted_and_left_as_it_is(folder, resolved):
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    try_bundle(folder, resolved)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_a_bundle_without_a_tokenizer_is_not(folder, resolved):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"its tokenizer cannot be used in a bundle.*\. Save it as a tokenizer\.json"):
        try_bundle(folder, resolved)


def test_a_bundle_with_other_ids_is_not(folder, resolved):
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["normalizer"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["artefacts"]["tokenizer.json"] = sha256_file(folder / "tokenizer.json")
    manifest["sha256"] = digest_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="gives other token ids than the checkpoint's tokenizer"):
        try_bundle(folder, resolved)
