"""`toolchain shrink` on tiny checkpoints: the result is an ordinary checkpoint, whole or absent."""

import json
import os
import random
import shutil
import subprocess
import time

import pytest
import torch
import transformers
from safetensors.torch import load_file

from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.bundle.learnt import learnt_digests
from toolchain.bundle.resolved_recipe import resolve
from toolchain.checkpoint.shrunk import read_shrink
from toolchain.data.tables import read_split
from toolchain.distill import shrink as module
from toolchain.distill.options import Options
from toolchain.distill.rows import recipe_of
from toolchain.distill.shrink import judge_shrunk, shrink
from toolchain.errors import GateError, InputError, UsageError
from toolchain.recipe import Recipe
from toolchain.records.check import find_fault
from toolchain.records.shrink import ShrinkRecord
from toolchain.workflow import evaluate

HALF = Options(ffn=0.5, steps=6)


@pytest.fixture(scope="module")
def make(tiny_distilbert, lesson):
    """Return what shrinks the tiny DistilBERT to half its feed-forward in a few steps."""

    def call(output, options=HALF, **changes):
        values = {"model": str(tiny_distilbert), "task": "sst2", "data": str(lesson), "device": "cpu"}
        return shrink({**values, **changes}, options, output)

    return call


@pytest.fixture(scope="module")
def small(make, once):
    """A shrunk checkpoint; read only."""
    return once("small", lambda folder: make(folder / "checkpoint", max_drop=0.0)) / "checkpoint"


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def accuracy(folder, lesson):
    """The accuracy on the validation rows, by transformers alone."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = read_split(lesson, "validation").columns
    with torch.inference_mode():
        logits = model(**tokenizer(rows["sentence"], padding=True, return_tensors="pt")).logits
    return float((logits.argmax(-1) == torch.tensor([int(label) for label in rows["label"]])).float().mean())


def test_the_result_is_an_ordinary_checkpoint_with_its_record(small, tiny_distilbert, lesson):
    record = json.loads((small / "shrink.json").read_text())
    config, before = (json.loads((folder / "config.json").read_text()) for folder in (small, tiny_distilbert))
    assert config == {**before, "hidden_dim": 64}
    assert find_fault(record, ShrinkRecord) is None
    assert record["scores"]["shrunk"] == pytest.approx(accuracy(small, lesson))
    assert record["scores"]["original"] == pytest.approx(accuracy(tiny_distilbert, lesson))
    assert record["ffn"] == {"before": 128, "after": 64}
    assert (record["rows"], record["rows_left_out"], record["scores"]["n"]) == (1000, 40, 60)
    assert (record["steps"], record["rows_seen"]) == (6, 6 * 32)
    assert record["parameters"]["after"] == sum(one.numel() for one in weights(small).values())
    assert (small / "tokenizer.json").read_bytes() == (tiny_distilbert / "tokenizer.json").read_bytes()


def test_the_same_seed_gives_the_same_weights_also_where_the_end_was_interrupted(make, small, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == [".again.shrink"]
    make(tmp_path / "again")
    assert same(weights(tmp_path / "again"), weights(small))
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_rows_that_a_limit_leaves_out_are_not_learnt_from_either_and_the_next_command_has_the_options(make, tmp_path):
    made = make(tmp_path / "few", Options(ffn=0.5, steps=1), limit=10, trust_remote_code=True)
    assert (made["shrink"]["scores"]["n"], made["shrink"]["rows_left_out"]) == (10, 40)
    assert made["next"].endswith("--trust-remote-code --precision int8")


def test_layers_and_width_are_chosen_by_the_speed(make, tmp_path):
    made = make(tmp_path / "fast", Options(target_speed=1.5, steps=1))["shrink"]
    assert made["macs_ratio"] <= 1 / 1.5
    assert json.loads((tmp_path / "fast/config.json").read_text())["n_layers"] == len(made["layers_kept"])


@pytest.mark.parametrize(("labels", "pooling"), [(1, None), (2, "mean")])
def test_numbers_and_vectors_are_learnt_from_texts_alone(tiny, lesson, tmp_path, labels, pooling):
    source = tiny.make_checkpoint(tmp_path / "big", "bert", labels=labels, pooling=pooling)
    task = tmp_path / "task.toml"
    task.write_text('text_columns = ["sentence"]\nlabel_column = "label"\n')
    values = {"model": str(source), "task": str(task), "data": str(lesson / "texts.csv"), "device": "cpu"}
    if pooling:
        task.write_text('text_columns = ["sentence", "sentence"]\nlabel_column = "label"\n')
    found = shrink(values, Options(ffn=0.5, layers=1, steps=40), tmp_path / "small")
    assert " --data LABELLED_ROWS --precision int8" in found["next"]
    made = found["shrink"]
    assert made["scores"] is None
    assert made["loss"]["last"] < made["loss"]["first"]
    assert (made["rows"], made["layers"]["after"]) == (1060, 1)
    assert (tmp_path / "small/modules.json").exists() == bool(pooling)
    assert resolve(Recipe.make(values | {"model": str(tmp_path / "small")})).head.labels == (
        ("score",) if labels == 1 else ()
    )


def test_a_gate_that_fails_is_exit_3_and_the_checkpoint_stays(make, tmp_path):
    found = make(tmp_path / "small", max_drop=0.0)
    found["gate"] |= {"verdict": "fails", "drop_points": 9.0}
    with pytest.raises(GateError, match=r"drops by 9.00 points, and the limit is 0. Give more --steps, or cut less."):
        judge_shrunk(found, Recipe.make({"max_drop": 0.0}))
    assert found["gate"]["n"] == 60


@pytest.mark.slow
def test_results_of_its_bundle_are_compared_with_the_original_while_it_is_there(
    make, tiny_distilbert, lesson, tmp_path, caplog
):
    big, bundle = shutil.copytree(tiny_distilbert, tmp_path / "big"), tmp_path / "bundle"
    made = make(tmp_path / "small", Options(ffn=0.5, steps=1), model=str(big))["shrink"]
    keys = {"model": str(tmp_path / "small"), "task": "sst2", "precision": "fp32", "output": str(bundle)}
    keys |= {"data": str(lesson), "device": "cpu"}
    build(Recipe.make(keys))
    assert open_bundle(bundle).manifest["shrink"] == made
    assert len(learnt_digests(open_bundle(bundle))) == made["rows"]
    agreement = evaluate({"backend": "torch", "device": "cpu"}, bundle=bundle)["agreement"]
    assert agreement["reference"] == "original-fp32"
    assert agreement["max_abs_logit_difference"] > 1e-3
    big.rename(tmp_path / "gone")
    agreement = evaluate({"backend": "ort", "device": "cpu"}, bundle=bundle)["agreement"]
    assert agreement["reference"] == "torch-fp32"
    assert agreement["max_abs_logit_difference"] < 1e-4
    assert f"its original {big} cannot be found" in caplog.text
    assert "The shrunk checkpoint is the reference instead." in caplog.text


def test_a_broken_record_is_one_line(tmp_path):
    (tmp_path / "shrink.json").write_text("{}")
    with pytest.raises(InputError, match=r"shrink.json: broken: \w+ is missing. Remove the file"):
        read_shrink(tmp_path)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_there_is_replaced_only_if_it_is_ours_and_with_force(make, small, tmp_path, force):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match=r"mine: it exists already and was not made by shrink. Choose another folder"):
        make(tmp_path / "mine", model=str(tmp_path / "none"), force=force)  # before the model is looked for
    if not force:
        with pytest.raises(UsageError, match=r"it is the model itself, which would be replaced"):
            make(small, model=str(small), force=True)
        with pytest.raises(InputError, match=r"it exists already. Choose another folder with -o, or give --force"):
            make(small)


def test_the_result_of_a_call_that_has_just_ended_is_not_replaced(make, small, tmp_path, monkeypatch):
    choose = module.choose_rows

    def slow(resolved):
        shutil.copytree(small, tmp_path / "small")
        return choose(resolved)

    monkeypatch.setattr(module, "choose_rows", slow)
    with pytest.raises(InputError, match=r"it exists already. Choose another folder with -o, or give --force"):
        make(tmp_path / "small")


def test_a_refused_call_leaves_no_folder(make, tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("it has no feed-forward")

    monkeypatch.setattr(module, "_cut", refuse)
    with pytest.raises(InputError, match="no feed-forward"):
        make(tmp_path / "new/folder/small")
    assert not list(tmp_path.iterdir())


def test_texts_alone_need_no_label_column(lesson):
    words = {"task": "custom", "text_column": "sentence"}
    assert recipe_of({**words, "data": str(lesson / "texts.csv")}).label_column == "LABEL_COLUMN"
    with pytest.raises(UsageError, match="--label-column"):
        recipe_of({**words, "data": str(lesson)})


def test_too_few_texts_are_refused(make, tmp_path, tiny):
    (tmp_path / "few.csv").write_text("sentence\n" + "\n".join(tiny.WORDS[:12]) + "\n")
    with pytest.raises(InputError, match=r"few.csv: only 12 rows of text can be learnt from. Give 1,000 or more."):
        make(tmp_path / "small", data=str(tmp_path / "few.csv"))
    assert not (tmp_path / "small").exists()


def test_a_gate_without_labelled_rows_is_refused(make, lesson, tmp_path):
    with pytest.raises(UsageError, match=r"--max-drop 1: there are no labelled rows to evaluate"):
        make(tmp_path / "small", data=str(lesson / "texts.csv"), max_drop=1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no option says what to cut"),
        ({"ffn": 0.0}, r"--ffn 0: the fraction must be above 0 and at most 1"),
        ({"ffn": 1.5}, r"--ffn 1.5: the fraction must be above 0 and at most 1"),
        ({"layers": 0}, r"--layers 0: too small"),
        ({"target_speed": 1.0}, r"--target-speed 1: it is not a number above 1"),
        ({"target_speed": 2.0, "layers": 2}, r"--target-speed: it chooses --ffn and --layers"),
        ({"ffn": 0.5, "steps": 0}, r"--steps 0: too small"),
        ({"ffn": 0.5, "minutes": 0.0}, r"--minutes 0: it is not a number above 0"),
        ({"ffn": 0.5, "minutes": 1.0, "steps": 5}, r"--minutes 1: --steps 5 is given too"),
    ],
)
def test_options_out_of_range_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        Options(**given)


@pytest.mark.slow
def test_sigkill_leaves_nothing_half_written(python, root, tiny_distilbert, lesson, small, tmp_path):
    words = ["-m", "toolchain", "shrink", "-m", tiny_distilbert, "--task", "sst2", "--data", lesson, "--ffn", 0.5]
    command = [*python, *map(str, [*words, "--steps", 6, "-o", tmp_path / "small"])]
    environment, generator, lasts_s = os.environ | {"PYTHONPATH": str(root)}, random.Random(0), 12.0
    for _ in range(4):
        start = time.monotonic()
        with subprocess.Popen([*command, "--force"], env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(generator.uniform(0, lasts_s))
                lasts_s = time.monotonic() - start
            except subprocess.TimeoutExpired:
                process.kill()
        if (tmp_path / "small").exists():
            assert same(weights(tmp_path / "small"), weights(small))
    subprocess.run([*command, "--force"], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert same(weights(tmp_path / "small"), weights(small))
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
