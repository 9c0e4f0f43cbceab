"""`--reuse`: a graph of the same checkpoint is taken and compared with it; every other one is exported."""

import json
import shutil

import pytest

from toolchain.base.files import sha256_file
from toolchain.bundle import digest_of, open_bundle
from toolchain.bundle.build import build
from toolchain.bundle.reuse import bundles_at
from toolchain.errors import InputError, UsageError
from toolchain.recipe import Recipe


@pytest.fixture
def other(begun, tmp_path):
    return begun("fp32", tmp_path / "others/first")


@pytest.fixture
def again(tiny_distilbert, tmp_path, monkeypatch):
    """Return a function that builds the checkpoint in FP32 with `--reuse`, and gives what it said; it cannot export."""

    def exported(source, target):
        raise ZeroDivisionError

    monkeypatch.setattr("toolchain.checkpoint.export.export", exported)

    def run(reuse, **options):
        said = []
        values = {"model": str(tiny_distilbert), "task": "sst2", "precision": "fp32", "device": "cpu"}
        build(Recipe.make({**values, "reuse": str(reuse), "output": str(tmp_path / "new"), **options}), log=said.append)
        return said

    return run


@pytest.mark.parametrize("max_length", [None, 16])
def test_a_graph_is_taken_from_a_folder_of_bundles_also_for_another_length(other, again, tmp_path, max_length):
    (tmp_path / "others/broken").mkdir()
    (tmp_path / "others/broken/bundle.json").write_text("{}")
    said = again(other.parent, max_length=max_length)
    assert said[:2] == ["export ...", f"export: copied the graph from {other}"]
    new, old = open_bundle(tmp_path / "new"), open_bundle(other)
    assert new.manifest["artefacts"]["model.onnx"] == old.manifest["artefacts"]["model.onnx"]
    assert new.manifest["parity"]["export"]["max_abs_logit_difference"] < 1e-4
    assert "reuse" not in new.manifest["recipe"]
    assert (other / "model.onnx").stat().st_nlink == (tmp_path / "new/model.onnx").stat().st_nlink == 1


def test_a_graph_that_only_claims_to_be_the_checkpoints_is_refused(other, again, exported, tmp_path):
    shutil.copy(exported["roberta"], other / "model.onnx")
    manifest = json.loads((other / "bundle.json").read_text())
    manifest["artefacts"]["model.onnx"] = sha256_file(other / "model.onnx")
    manifest["sha256"] = digest_of(manifest)
    (other / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"its graph was exported from .*, but their logits differ.*Leave --reuse out"):
        again(other)
    assert not (tmp_path / "new").exists()


def test_what_does_not_fit_is_exported(other, again):
    with pytest.raises(ZeroDivisionError):
        again(other, atol=1e-3)
    (other / "model.onnx").write_bytes(b"changed")
    with pytest.raises(ZeroDivisionError):
        again(other)


def test_only_a_folder_with_a_bundle_that_can_be_read_is_taken(other, again, tmp_path):
    with pytest.raises(InputError, match=r"--reuse .*nowhere: there is no such folder\. Give the folder of a bundle"):
        again(tmp_path / "nowhere", dry_run=True)
    assert [one.path for one in bundles_at(tmp_path)] == [other]
    (other / "bundle.json").write_text("{}")
    assert bundles_at(tmp_path) == []
    with pytest.raises(InputError, match="broken: it lacks schema, sha256, artefacts or steps"):
        bundles_at(other)


def test_it_is_given_on_the_command_line_alone_and_without_force(tmp_path):
    (tmp_path / "recipe.toml").write_text('reuse = "elsewhere"')
    with pytest.raises(
        UsageError, match=r"reuse can only be given on the command line.*if you trust the checkpoint or bundle"
    ):
        Recipe.values({}, file=tmp_path / "recipe.toml")
    with pytest.raises(UsageError, match="--reuse: it cannot be used with --force, which exports again"):
        Recipe.make({"reuse": ".", "force": True})
