"""From a bundle to a result: what design promises of its keys, its reference and its refusals."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.cli import parser
from toolchain.cli.options import choices
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.evaluation.target import find_target
from toolchain.recipe import Recipe
from toolchain.workflow import command_of, evaluate

KEYS = {
    "schema",
    "task",
    "split",
    "n",
    "data_sha256",
    "predictions",
    "model",
    "backend",
    "device",
    "precision",
    "artefact",
    "metrics",
    "metrics_ci95",
    "agreement",
    "latency_ms",
    "throughput_per_s",
    "runtime_throughput_per_s",
    "tokens",
    "peak_memory_mb",
    "roofline",
    "energy",
    "environment",
    "seed",
    "command",
    "created",
}


def quiet(line):
    pass


@pytest.fixture(scope="module")
def bundle(tiny, sentences, tmp_path_factory, begun):
    home = tmp_path_factory.mktemp("pipeline")
    checkpoint = tiny.make_checkpoint(home / "checkpoint", "distilbert")
    begun("int8", home / "bundle")
    build(
        Recipe.make(
            {
                "model": str(checkpoint),
                "data": str(sentences),
                "precision": "int8",
                "calib_samples": 20,
                "output": str(home / "bundle"),
            }
        )
    )
    return home / "bundle"


def test_a_result_has_every_key_and_is_kept(bundle):
    result = evaluate({"backend": "ort"}, bundle=bundle, tell=quiet)
    kept = json.loads(Path(result["file"]).read_text())
    assert set(result) >= KEYS
    assert kept["metrics"] == result["metrics"]
    assert (result["n"], result["precision"], result["artefact"]["file"]) == (40, "int8", "model.int8.cpu.onnx")
    assert result["energy"]["status"] == "unavailable"
    assert result["energy"]["total_j"] is None


def test_a_reference_is_not_reused_after_the_order_of_the_labels_changed(bundle, tmp_path):
    task = tmp_path / "mine.toml"
    for labels in ('["positive", "negative"]', '["negative", "positive"]'):
        task.write_text(f'text_columns = ["sentence"]\nlabel_column = "label"\nlabels = {labels}\n')
        result = evaluate({"task": str(task), "file": "model.onnx", "limit": 12}, bundle=bundle, tell=quiet)
        assert result["agreement"]["label_agreement"] == 1.0


def test_the_command_that_is_kept_asks_for_the_same():
    asked = {"backend": "ort", "precision": "int8", "limit": 7, "allow_pickle": True, "data": "my rows/it's"}
    command = shlex.split(command_of({**asked, "file": None}, Path("a bundle")))
    assert command[:2] == ["toolchain", "eval"]
    assert choices(parser("eval").parse_args(command[1:])) == (asked, Path("a bundle"))


def test_a_result_says_how_near_the_limit_it_is(bundle):
    found = evaluate({"backend": "ort"}, bundle=bundle, tell=quiet)["roofline"]
    assert found["model_flop_utilisation"] == pytest.approx(found["achieved_flop_per_s"] / found["ceiling_flop_per_s"])
    assert found["useful_flop"] <= found["executed_flop"]
    assert set(found["ceiling"]["flop_per_s"]) == {"int8", "fp32"}
    assert (found["bound"] in ("compute", "memory"), found["reason"]) == (True, None)


def test_predictions_hold_the_logits_row_by_row(bundle):
    result = evaluate({"backend": "ort", "precision": "fp32"}, bundle=bundle, tell=quiet)
    arrays = np.load(bundle / "results" / result["predictions"]["file"])
    assert arrays["ids"].tolist() == list(range(40))
    assert arrays["logits"].shape == (40, 2)


def test_fp32_on_ort_agrees_with_torch(bundle):
    result = evaluate({"backend": "ort", "precision": "fp32"}, bundle=bundle, tell=quiet)
    assert result["agreement"]["reference"] == "torch-fp32"
    assert result["agreement"]["max_abs_logit_difference"] < 1e-4


def test_halves_runs_the_typed_graph_with_float16_rounded(bundle):
    result = evaluate({"halves": True}, bundle=bundle, tell=quiet)
    assert (result["halves"], result["variant"], result["device"]) == (True, "int8.halves", "cpu")
    assert result["artefact"]["file"] == "model.int8.onnx"
    plain = evaluate({"file": "model.int8.onnx"}, bundle=bundle, tell=quiet)
    assert plain["halves"] is False
    logits = [np.load(bundle / "results" / one["predictions"]["file"])["logits"] for one in (result, plain)]
    # A value at the middle of two levels may round to either, so single logits differ by more.
    assert 0 < np.sqrt(np.square(logits[0] - logits[1]).mean()) < 0.1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"file": "model.onnx"}, r"--halves: model\.onnx has no float16 tensor"),
        ({"backend": "torch"}, "--halves: it can only be used with --backend ort on the CPU"),
        ({"device": "cuda"}, "--halves: it can only be used with --backend ort on the CPU"),
        ({"energy": True}, "--energy: it cannot be used with --halves"),
    ],
)
def test_halves_is_refused_where_nothing_is_emulated(bundle, given, message):
    with pytest.raises(UsageError, match=message):
        evaluate({"halves": True, **given}, bundle=bundle, tell=quiet)


def test_torch_runs_the_checkpoint(bundle):
    result = evaluate({"backend": "torch", "limit": 7}, bundle=bundle, tell=quiet)
    assert (result["n"], result["precision"], result["artefact"]["file"]) == (7, "fp32", "checkpoint")


def test_a_checkpoint_is_evaluated_without_a_bundle(tiny_bert, sentences, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choices = {"backend": "torch", "model": str(tiny_bert), "data": str(sentences), "precision": "bf16"}
    result = evaluate(choices, tell=quiet)
    assert Path(result["file"]).parent == Path("eval/results")
    assert result["agreement"]["label_agreement"] > 0.8


def test_a_bundle_that_left_its_checkpoint_is_compared_with_its_own_graph(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "moved")
    (bundle.parent / "checkpoint").rename(bundle.parent / "gone")
    try:
        result = evaluate({"backend": "ort"}, bundle=tmp_path / "moved", tell=quiet)
        with pytest.raises(InputError, match=r"its checkpoint .* cannot be found"):
            evaluate({"backend": "torch"}, bundle=tmp_path / "moved", tell=quiet)
    finally:
        (bundle.parent / "gone").rename(bundle.parent / "checkpoint")
    assert result["agreement"]["reference"] == "ort-fp32"


def test_a_changed_checkpoint_is_not_taken_for_the_bundles(bundle, tiny, tmp_path):
    shutil.copytree(bundle, tmp_path / "copy")
    other = tiny.make_checkpoint(tmp_path / "other", "distilbert", seed=1)
    saved = bundle.parent / "checkpoint"
    saved.rename(bundle.parent / "kept")
    shutil.copytree(other, saved)
    try:
        with pytest.raises(InputError, match="not the checkpoint that"):
            evaluate({"backend": "torch"}, bundle=tmp_path / "copy", tell=quiet)
    finally:
        shutil.rmtree(saved)
        (bundle.parent / "kept").rename(saved)


def test_rows_that_were_calibrated_with_are_not_evaluated(bundle, sentences):
    with pytest.raises(InputError, match="rows were used for calibration"):
        evaluate({"backend": "ort", "split": "train", "data": str(sentences)}, bundle=bundle, tell=quiet)


def test_a_changed_byte_is_found(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b")
    data = bytearray((tmp_path / "b/model.int8.cpu.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "b/model.int8.cpu.onnx").write_bytes(data)
    with pytest.raises(InputError, match=r"model\.int8\.cpu\.onnx: changed since it was built"):
        evaluate({"backend": "ort"}, bundle=tmp_path / "b", tell=quiet)


def test_a_trusted_digest_is_asked_for(bundle):
    digest = open_bundle(bundle).digest
    assert find_target({"trust": digest}, bundle).bundle.digest == digest
    with pytest.raises(InputError, match="is not the trusted"):
        find_target({"trust": "0" * 64}, bundle)


def test_tensorrt_is_asked_for_in_vain(bundle):
    with pytest.raises(MachineError, match="TensorRT: it is not installed"):
        evaluate({"backend": "trt"}, bundle=bundle, tell=quiet)


def test_an_artefact_that_was_not_built_is_named(bundle):
    with pytest.raises(InputError, match=r"has no model\.fp16\.onnx"):
        evaluate({"backend": "ort", "precision": "fp16"}, bundle=bundle, tell=quiet)


@pytest.mark.slow
def test_five_classes_of_ones_own(tiny, tmp_path):
    names = ("anger", "joy", "fear", "love", "surprise")
    model = tiny.make_checkpoint(tmp_path / "m", "bert", labels=names, num_hidden_layers=1)
    rows = [f'"{tiny.WORDS[index]} {tiny.WORDS[index + 9]}, so",note,{names[index % 5].title()}' for index in range(40)]
    (tmp_path / "validation.csv").write_text("body,extra,feeling\n" + "\n".join(rows) + "\n")
    (tmp_path / "train.csv").write_text("body,extra,feeling\n" + "\n".join(f"word {i},n,joy" for i in range(30)) + "\n")
    custom = {
        "model": str(model),
        "task": "custom",
        "text_column": "body",
        "label_column": "feeling",
        "data": str(tmp_path),
        "precision": "int8",
        "output": str(tmp_path / "b"),
    }
    build(Recipe.make(custom))
    result = evaluate({"backend": "ort"}, bundle=tmp_path / "b", tell=quiet)
    assert result["n"] == 40
    assert np.load(tmp_path / "b/results" / result["predictions"]["file"])["logits"].shape == (40, 5)


@pytest.mark.slow
def test_regression_of_pairs(tiny, tmp_path):
    model = tiny.make_checkpoint(tmp_path / "m", "roberta", labels=1, num_hidden_layers=1)
    for split in ("train", "validation"):
        rows = [f"{tiny.WORDS[index]} {split}\tgood {tiny.WORDS[-index]}\t{index / 8}" for index in range(1, 40)]
        (tmp_path / f"{split}.tsv").write_text("a\tb\tscore\n" + "\n".join(rows) + "\n")
    custom = {
        "model": str(model),
        "task": "custom",
        "text_column": "a,b",
        "label_column": "score",
        "data": str(tmp_path),
        "precision": "int8",
        "output": str(tmp_path / "b"),
    }
    build(Recipe.make(custom))
    result = evaluate({"backend": "ort"}, bundle=tmp_path / "b", tell=quiet)
    assert set(result["metrics"]) == {"pearson", "spearman"}
    assert result["agreement"]["label_agreement"] is None


def test_a_bundle_does_not_consent_for_its_user(tiny, sentences, tmp_path):
    """Its checkpoint was pickled and allowed once; evaluating the bundle asks again."""
    model = tiny.make_checkpoint(tmp_path / "m", "distilbert", safe=False, n_layers=1)
    made = {"model": str(model), "data": str(sentences), "precision": "fp32", "output": str(tmp_path / "b")}
    build(Recipe.make({**made, "allow_pickle": True}))
    assert evaluate({"backend": "ort"}, bundle=tmp_path / "b", tell=quiet)["agreement"]["reference"] == "ort-fp32"
    with pytest.raises(InputError, match="Give --allow-pickle again if you trust it"):
        evaluate({"backend": "torch"}, bundle=tmp_path / "b", tell=quiet)
    result = evaluate({"backend": "torch", "allow_pickle": True}, bundle=tmp_path / "b", tell=quiet)
    assert result["agreement"]["reference"] == "torch-fp32"


def test_ranges_reused_from_a_file_are_still_refused_for_their_rows(bundle, sentences, tmp_path):
    saved = str(bundle.parent / "checkpoint")
    shutil.copytree(bundle, tmp_path / "b")  # which has been exported
    build(
        Recipe.make(
            {
                "model": saved,
                "data": str(sentences),
                "precision": "int8",
                "calibration": str(bundle / "calibration.json"),
                "output": str(tmp_path / "b"),
            }
        )
    )
    with pytest.raises(InputError, match="rows were used for calibration"):
        evaluate({"backend": "ort", "split": "train"}, bundle=tmp_path / "b", tell=quiet)


def test_a_file_is_not_for_torch(bundle):
    with pytest.raises(UsageError, match=r"--file model\.onnx: torch runs the checkpoint"):
        evaluate({"backend": "torch", "file": "model.onnx"}, bundle=bundle, tell=quiet)
