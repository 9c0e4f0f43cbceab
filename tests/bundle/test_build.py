"""Bundles from recipes: whole, skipped when nothing changed, refused with one clear line."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from toolchain.base.files import sha256_json
from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.bundle.resolved_recipe import resolve
from toolchain.bundle.steps import STEPS, _of_choice
from toolchain.errors import GateError, InputError, MachineError, UsageError
from toolchain.recipe import Recipe
from toolchain.runtimes import open_runtime


def recipe(**values):
    return Recipe.make({"task": "sst2", "calib_samples": 20, **values})


@pytest.fixture(scope="module")
def int8(tiny_distilbert, sentences, tmp_path_factory, begun):
    target = begun("fp32", tmp_path_factory.mktemp("build") / "bundle")
    made = recipe(model=str(tiny_distilbert), data=str(sentences), precision="int8", output=str(target))
    return made, build(made)


def test_an_int8_bundle_has_all_that_is_promised(int8):
    _, done = int8
    bundle = open_bundle(Path(done["bundle"]))
    expected = {
        "model.onnx",
        "model.int8.onnx",
        "model.int8.cpu.onnx",
        "calibration.json",
        "calibration.cache",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert expected <= set(bundle.manifest["artefacts"])
    assert bundle.manifest["calibration"]["samples"] == 20
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


@pytest.mark.slow
def test_force_redoes_everything_to_the_same_bytes(int8, tmp_path):
    made, done = int8
    before = open_bundle(Path(done["bundle"])).manifest["artefacts"]
    again = build(made.replace(force=True))
    assert again["done"] == ["export", "calibrate", "quantize"]
    assert open_bundle(Path(done["bundle"])).manifest["artefacts"] == before


@pytest.fixture(scope="module")
def fp16(tiny_bert, tmp_path_factory, begun):
    target = begun("fp32", tmp_path_factory.mktemp("fp16") / "b", "bert")
    made = recipe(model=str(tiny_bert), precision="fp16", output=str(target))
    return made, build(made)


def test_fp16_needs_no_data_and_stays_near(fp16, probe):
    folder = Path(fp16[1]["bundle"])
    with open_runtime("ort", folder / "model.onnx") as full, open_runtime("ort", folder / "model.fp16.onnx") as half:
        assert np.abs(full(probe("bert")) - half(probe("bert"))).max() < 0.05


def test_fp16_has_a_graph_for_cuda_too_and_does_without_where_it_cannot_be_fused(fp16, tmp_path, monkeypatch):
    from toolchain.evaluation.target import choose_graph
    from toolchain.graph import ort_cuda

    made, record = fp16[0].replace(output=str(tmp_path / "b")), fp16[1]["cuda"]
    shutil.copytree(fp16[1]["bundle"], tmp_path / "b")
    assert record["passes"]["attention"] == 2
    wide, halves = (record[key]["max_abs_logit_difference"] for key in ("parity_in_float32", "parity"))
    assert wide < 1e-4 < halves < 0.1  # the second with float16 tensors rounded
    bundle = open_bundle(tmp_path / "b")
    chosen = {
        (device, backend): choose_graph(bundle, "fp16", device, backend=backend)
        for device in ("cpu", "cuda:0")
        for backend in ("ort", "ort-trt")
    }
    fused = [place for place, file in chosen.items() if file == "model.fp16.cuda.onnx"]
    assert fused == [("cuda:0", "ort")]
    monkeypatch.setitem(ort_cuda.FUSIONS, "attention", lambda model: 1)
    build(made.replace(precision="fp32"))  # without the graph for CUDA, and with the export
    record = build(made)["cuda"]
    assert record["passes"] is None
    assert "the fusion attention for CUDA fits only 1 of 2 places" in record["reason"]
    assert set(chosen.values()) - set(open_bundle(tmp_path / "b").manifest["artefacts"]) == {"model.fp16.cuda.onnx"}


def test_another_length_of_rows_redoes_what_they_decided(fp16, tmp_path):
    """Which tensors fit float16 is measured on rows, which a shorter length cuts."""
    made, record = fp16
    shutil.copytree(record["bundle"], tmp_path / "b")
    again = build(made.replace(max_length=16, output=str(tmp_path / "b"), reuse=str(tmp_path / "b")))
    assert again["done"] == ["export", "half", "cuda"]


def test_inputs_of_steps_have_all_that_their_files_depend_on(tiny_distilbert, sentences, tmp_path):
    model = shutil.copytree(tiny_distilbert, tmp_path / "model")

    def inputs(name, **changes):
        """Return a digest of a step's inputs, without running it."""
        values = {"model": str(model), "data": str(sentences), "precision": "int8", "calib_method": "auto"}
        kept = []
        artefacts = {"model.onnx": "1", "calibration.json": "2"}
        made = SimpleNamespace(
            artefacts=artefacts, steps={}, old=None, log=None, step=lambda *given: kept.append(given)
        )
        STEPS[name].run(resolve(recipe(**values, **changes)), made)
        return sha256_json(kept[0][1])

    for name in ("half", "cuda", "calibrate", "quantize"):
        assert inputs(name) == inputs(name) != inputs(name, max_length=16)
    assert inputs("calibrate") != inputs("calibrate", seed=1)
    known = inputs("export")
    (model / "shrink.rows.json").write_text("[]")
    assert inputs("export") != known


def test_the_task_of_the_head_is_an_input_of_a_choice():
    task = [
        resolve(Recipe(model="demo-multilabel", task="demo-multilabel", threshold=threshold))
        for threshold in (0.5, 0.1)
    ]
    assert _of_choice(task[0]) != _of_choice(task[1])


def test_rows_to_evaluate_are_not_calibrated_with(tiny_distilbert, sentences, tmp_path):
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib/train.csv").symlink_to(sentences / "validation.csv")
    with pytest.raises(InputError, match="all of these rows are also rows to evaluate"):
        build(
            recipe(
                model=str(tiny_distilbert),
                data=str(sentences),
                calib_data=str(tmp_path / "calib"),
                precision="int8",
                output=str(tmp_path / "b"),
            )
        )
    assert not (tmp_path / "b").exists()


def test_ranges_made_before_are_used_as_they_are(int8, tiny_distilbert, tmp_path, begun):
    begun("fp32", tmp_path / "b")
    file = f"{int8[1]['bundle']}/calibration.json"
    done = build(recipe(model=str(tiny_distilbert), precision="int8", calibration=file, output=str(tmp_path / "b")))
    ranges = [json.loads(Path(path).read_text())["ranges"] for path in (file, f"{done['bundle']}/calibration.json")]
    assert ranges[0] == ranges[1]


def test_ranges_of_another_graph_are_refused(int8, begun_regression, tmp_path):
    """Also one whose tensors have the same names."""
    given = {"precision": "int8", "calibration": f"{int8[1]['bundle']}/calibration.json"}
    made = begun_regression(tmp_path / "b")
    with pytest.raises(InputError, match=r"calibration\.json: these ranges were calibrated on another graph"):
        build(recipe(**made | given))
    assert open_bundle(tmp_path / "b").manifest["precision"] == "fp32"  # as before


def test_ranges_from_a_file_keep_what_they_were_made_from(int8, tiny_distilbert, tmp_path, begun):
    begun("fp32", tmp_path / "b")
    file = Path(int8[1]["bundle"]) / "calibration.json"
    done = build(
        recipe(model=str(tiny_distilbert), precision="int8", calibration=str(file), output=str(tmp_path / "b"))
    )
    assert (Path(done["bundle"]) / "calibration.json").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_missing_data_folder_is_refused_before_any_step(tiny_distilbert, tmp_path, precision):
    with pytest.raises(InputError, match="the folder does not exist"):
        build(recipe(model=str(tiny_distilbert), data=str(tmp_path / "none"), precision=precision))


def test_a_head_that_does_not_fit_the_task_is_refused_at_once(tiny, tmp_path):
    model = tiny.make_checkpoint(tmp_path / "m", "distilbert", labels=3)
    with pytest.raises(InputError, match="--task sst2: the task has 2 labels, and the model has 3"):
        build(recipe(model=str(model)))


def test_a_difference_above_atol_is_exit_3_and_leaves_nothing(tiny, tmp_path):
    model = tiny.make_checkpoint(tmp_path / "m", "distilbert", n_layers=1)
    with pytest.raises(GateError, match="logits differ from PyTorch"):
        build(recipe(model=str(model), precision="fp32", atol=1e-12, output=str(tmp_path / "b")))
    assert not (tmp_path / "b").exists()


def test_bf16_is_not_built():
    with pytest.raises(UsageError, match="--precision bf16: this precision can only be used with eval"):
        build(recipe(model="demo", precision="bf16"))


def test_dry_run_does_nothing(tiny_distilbert, tmp_path):
    done = build(recipe(model=str(tiny_distilbert), precision="int8", output=str(tmp_path / "b"), dry_run=True))
    assert done["would_do"] == ["export", "calibrate", "quantize"]
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_needs_the_hub_is_exit_4(tmp_path):
    with pytest.raises(MachineError, match="the hub cannot be reached"):
        build(recipe(model="nobody/nothing-of-that-name", output=str(tmp_path / "b")))


@pytest.fixture(scope="module")
def auto(tiny_distilbert, sentences, tmp_path_factory, begun):
    target = begun("fp32", tmp_path_factory.mktemp("auto") / "bundle")
    made = recipe(
        model=str(tiny_distilbert),
        data=str(sentences),
        precision="int8",
        calib_samples=24,
        calib_method="auto",
        max_drop=0.5,
        output=str(target),
    )
    return made, build(made)


def test_auto_chooses_on_rows_that_it_did_not_calibrate_with_and_says_why(auto):
    _, done = auto
    about = json.loads((Path(done["bundle"]) / "calibration.json").read_text())
    assert (about["samples"], about["chosen_on"]["rows"]) == (24, 36)
    assert len({*about["row_sha256"], *about["chosen_sha256"]}) == 60
    nearest, *others = about["trials"]
    assert (about["method"], about["smooth"]) == (nearest["method"], nearest["smooth"])
    assert len(others) == 19
    assert "keep" not in about  # of the tiny model no label changes at all
    assert about["residual"] == "int8"
    assert about["residual_drop_points"] <= 0.5
    assert done["quantize"]["views"]["model.int8.onnx"]["residual"] == 4
    assert done["quantize"]["views"]["model.int8.onnx"]["kept"] == []


def test_a_gate_that_int8_would_miss_keeps_a_little_out_of_it(begun_regression, tmp_path):
    made = begun_regression(tmp_path / "b")  # where every error counts
    gate = {"precision": "int8", "calib_method": "auto", "smooth": 0.5, "max_drop": 1e-6}
    view = build(recipe(**made | gate))["quantize"]["views"]["model.int8.onnx"]
    kept, residual = view["kept"], view["residual"]
    about = json.loads((tmp_path / "b/calibration.json").read_text())
    assert kept == about["keep"] != []
    assert 0 < about["kept"]["macs"] <= 0.09
    assert (residual, "residual" in about) == (0, False)  # they would only add to the drop


def test_ranges_that_were_chosen_are_taken_whole_with_calibration(auto, tmp_path, begun):
    begun("fp32", tmp_path / "b")
    made, done = auto
    first = Path(done["bundle"])
    again = recipe(
        model=made.model,
        data=made.data,
        precision="int8",
        calibration=str(first / "calibration.json"),
        output=str(tmp_path / "b"),
    )
    build(again)
    ours, theirs = (open_bundle(place).manifest["artefacts"] for place in (first, tmp_path / "b"))
    assert ours["model.int8.onnx"] == theirs["model.int8.onnx"]


def test_auto_is_up_to_date_the_second_time(auto):
    assert build(auto[0])["up_to_date"]


def test_smooth_and_keep_redo_only_what_depends_on_them(int8, tmp_path):
    made, done = int8
    shutil.copytree(done["bundle"], tmp_path / "copy")
    kept = made.replace(keep="*.lin2", output=str(tmp_path / "copy"))
    assert build(kept)["done"] == ["quantize"]
    integer = build(kept.replace(residual="int8"))
    assert integer["done"] == ["quantize"]
    assert integer["quantize"]["views"]["model.int8.onnx"]["residual"] == 4
    smoothed = build(kept.replace(smooth=0.5))
    assert smoothed["done"] == ["calibrate", "quantize"]
    assert smoothed["quantize"]["views"]["model.int8.onnx"]["smoothing_muls"] == 6


@pytest.mark.parametrize("rows", [1, 7])
def test_fewer_rows_than_a_batch_are_refused(tiny_distilbert, tmp_path, rows):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.csv").write_text("sentence,label\n" + "a good film,1\n" * rows)
    with pytest.raises(
        InputError, match=rf"train\.csv: {rows} rows are too few to calibrate with\. Give 8 or more rows"
    ):
        build(
            recipe(
                model=str(tiny_distilbert), data=str(tmp_path / "data"), precision="int8", output=str(tmp_path / "b")
            )
        )


def test_rows_that_all_say_the_same_leave_none_to_choose_on(tiny_distilbert, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.csv").write_text("sentence,label\n" + "a good film,1\n" * 30)
    with pytest.raises(InputError, match="so no hold-out rows are left"):
        build(
            recipe(
                model=str(tiny_distilbert),
                data=str(tmp_path / "data"),
                precision="int8",
                calib_method="auto",
                output=str(tmp_path / "b"),
            )
        )


def test_a_calibration_file_that_changed_is_taken_anew(int8, tmp_path, begun):
    begun("fp32", tmp_path / "b")
    made, done = int8
    shutil.copy(Path(done["bundle"]) / "calibration.json", tmp_path / "c.json")
    given = made.replace(calibration=str(tmp_path / "c.json"), output=str(tmp_path / "b"))
    build(given)
    before = open_bundle(tmp_path / "b").manifest["artefacts"]["model.int8.onnx"]
    about = json.loads((tmp_path / "c.json").read_text())
    about["ranges"] = {name: {key: value / 4 for key, value in one.items()} for name, one in about["ranges"].items()}
    (tmp_path / "c.json").write_text(json.dumps(about))
    assert build(given)["done"] == ["calibrate", "quantize"]
    assert open_bundle(tmp_path / "b").manifest["artefacts"]["model.int8.onnx"] != before
    del about["ranges"][next(iter(about["ranges"]))]
    (tmp_path / "c.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="no range for"):
        build(given)


def test_a_bundle_with_a_gate_is_rebuilt_by_itself_to_the_same(auto):
    from toolchain.evaluation.target import recorded

    bundle = open_bundle(Path(auto[1]["bundle"]))
    assert build(recorded(bundle, {}))["up_to_date"]


def test_a_bundle_that_was_built_from_its_own_ranges_can_move(auto, tmp_path):
    from toolchain.evaluation.target import recorded

    shutil.copytree(auto[1]["bundle"], tmp_path / "a")
    build(recorded(open_bundle(tmp_path / "a"), {"calibration": str(tmp_path / "a/calibration.json"), "keep": ""}))
    (tmp_path / "a").rename(tmp_path / "b")
    again = recorded(open_bundle(tmp_path / "b"), {})
    assert (again.calibration, again.keep) == (str(tmp_path / "b/calibration.json"), "")
    assert build(again)["up_to_date"]


def test_a_gate_without_rows_to_look_at_fails_before_anything_is_built(tiny_distilbert, sentences, tmp_path):
    (tmp_path / "data").mkdir()
    shutil.copy(sentences / "train.csv", tmp_path / "data")
    with pytest.raises(InputError, match="none of validation"):
        build(
            recipe(
                model=str(tiny_distilbert),
                data=str(tmp_path / "data"),
                precision="int8",
                max_drop=1.0,
                output=str(tmp_path / "b"),
            )
        )
    assert not (tmp_path / "b").exists()
