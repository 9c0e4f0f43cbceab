"""Bundles from recipes: whole, skipped when nothing changed, refused with one clear line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from toolchain.build import build
from toolchain.bundle import open_bundle
from toolchain.errors import GateError, InputError, MachineError, UsageError
from toolchain.recipe import Recipe
from toolchain.runtimes import open_runtime


def recipe(**values):
    return Recipe.make({"task": "sst2", "calib_samples": 24, **values})


@pytest.fixture(scope="module")
def int8(tiny_distilbert, sentences, tmp_path_factory):
    target = tmp_path_factory.mktemp("build") / "bundle"
    made = recipe(model=str(tiny_distilbert), data=str(sentences), precision="int8", output=str(target))
    return made, build(made)


def test_an_int8_bundle_has_all_that_is_promised(int8):
    _, done = int8
    bundle = open_bundle(Path(done["bundle"]))
    expected = {"model.onnx", "model.int8.onnx", "model.int8.cpu.onnx", "calibration.json", "calibration.cache",
                "config.json", "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
    assert expected <= set(bundle.manifest["artefacts"])
    assert bundle.manifest["calibration"]["samples"] == 24
    assert bundle.manifest["parity"]["export"]["max_abs_logit_difference"] < 1e-4


def test_a_bundle_is_a_folder_that_transformers_reads(int8):
    from transformers import AutoConfig, AutoTokenizer

    folder = int8[1]["bundle"]
    assert AutoConfig.from_pretrained(folder).model_type == "distilbert"
    assert AutoTokenizer.from_pretrained(folder)("a good film")["input_ids"]


def test_the_second_build_does_nothing(int8):
    made, _ = int8
    done = build(made)
    assert done["up_to_date"]
    assert done["done"] == []


def test_another_method_redoes_only_what_depends_on_it(int8, tmp_path):
    made, done = int8
    shutil.copytree(done["bundle"], tmp_path / "copy")
    again = build(made.replace(calib_method="mse", output=str(tmp_path / "copy")))
    assert again["skipped"] == ["export"]
    assert again["done"] == ["calibrate", "quantize"]


def test_force_redoes_everything_to_the_same_bytes(int8, tmp_path):
    made, done = int8
    before = open_bundle(Path(done["bundle"])).manifest["artefacts"]
    again = build(made.replace(force=True))
    assert again["done"] == ["export", "calibrate", "quantize"]
    assert open_bundle(Path(done["bundle"])).manifest["artefacts"] == before


def test_fp16_needs_no_data_and_stays_near(tiny_bert, tmp_path, probe):
    build(recipe(model=str(tiny_bert), precision="fp16", output=str(tmp_path / "b")))
    with (
        open_runtime("ort", tmp_path / "b/model.onnx") as full,
        open_runtime("ort", tmp_path / "b/model.fp16.onnx") as half,
    ):
        assert np.abs(full(probe("bert")) - half(probe("bert"))).max() < 0.05


def test_calibration_never_reads_the_validation_file(tiny_distilbert, sentences, tmp_path):
    shutil.copytree(sentences, tmp_path / "data")
    (tmp_path / "data/validation.csv").write_bytes(b"\xff\xfe\x00 unreadable as a table")
    done = build(recipe(model=str(tiny_distilbert), data=str(tmp_path / "data"), precision="int8",
                        output=str(tmp_path / "b")))  # fmt: skip
    assert done["calibrate"]["samples"] == 24


def test_rows_to_evaluate_are_not_calibrated_with(tiny_distilbert, sentences, tmp_path):
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib/train.csv").symlink_to(sentences / "validation.csv")
    with pytest.raises(InputError, match="are the rows to evaluate"):
        build(recipe(model=str(tiny_distilbert), data=str(sentences), calib_data=str(tmp_path / "calib"),
                     precision="int8", output=str(tmp_path / "b")))  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_ranges_made_before_are_used_as_they_are(int8, tiny_distilbert, sentences, tmp_path):
    file = f"{int8[1]['bundle']}/calibration.json"
    done = build(recipe(model=str(tiny_distilbert), precision="int8", calibration=file, output=str(tmp_path / "b")))
    ranges = [json.loads(Path(path).read_text())["ranges"] for path in (file, f"{done['bundle']}/calibration.json")]
    assert ranges[0] == ranges[1]


def test_ranges_of_another_graph_are_refused(int8, tiny, tmp_path):
    """Also one whose tensors have the same names."""
    file = f"{int8[1]['bundle']}/calibration.json"
    other = tiny.make_checkpoint(tmp_path / "other", "distilbert", seed=7)
    with pytest.raises(InputError, match=r"calibration\.json: made for another graph"):
        build(recipe(model=str(other), precision="int8", calibration=file, output=str(tmp_path / "b")))
    assert not (tmp_path / "b").exists()


def test_ranges_from_a_file_keep_what_they_were_made_from(int8, tiny_distilbert, tmp_path):
    file = Path(int8[1]["bundle"]) / "calibration.json"
    done = build(
        recipe(model=str(tiny_distilbert), precision="int8", calibration=str(file), output=str(tmp_path / "b"))
    )
    assert (Path(done["bundle"]) / "calibration.json").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_data_folder_that_is_not_there_is_refused_before_anything_is_done(tiny_distilbert, tmp_path, precision):
    with pytest.raises(InputError, match="no such folder"):
        build(recipe(model=str(tiny_distilbert), data=str(tmp_path / "none"), precision=precision))


def test_a_head_that_does_not_fit_the_task_is_refused_at_once(tiny, tmp_path):
    model = tiny.make_checkpoint(tmp_path / "m", "distilbert", labels=3)
    with pytest.raises(InputError, match="--task sst2: has 2 labels, the model 3"):
        build(recipe(model=str(model)))


def test_a_difference_above_atol_is_exit_3_and_leaves_nothing(tiny_distilbert, tmp_path):
    with pytest.raises(GateError, match="logits differ from PyTorch"):
        build(recipe(model=str(tiny_distilbert), precision="fp32", atol=1e-12, output=str(tmp_path / "b")))
    assert not (tmp_path / "b").exists()


def test_bf16_is_not_built():
    with pytest.raises(UsageError, match="--precision bf16: only for eval --backend torch"):
        build(recipe(model="demo", precision="bf16"))


def test_dry_run_does_nothing(tiny_distilbert, tmp_path):
    done = build(recipe(model=str(tiny_distilbert), precision="int8", output=str(tmp_path / "b"), dry_run=True))
    assert done["would_do"] == ["export", "calibrate", "quantize"]
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_needs_the_hub_is_exit_4(tmp_path):
    with pytest.raises(MachineError, match="the hub cannot be reached"):
        build(recipe(model="nobody/nothing-of-that-name", output=str(tmp_path / "b")))
