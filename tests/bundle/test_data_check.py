"""The data are checked before any long step; what is evaluated is not calibrated with."""

import json
import logging

import numpy as np
import pytest

from toolchain.bundle.build import build
from toolchain.bundle.data_check import check_data
from toolchain.bundle.resolved_recipe import resolve
from toolchain.errors import InputError
from toolchain.recipe import Recipe

CUSTOM = {"task": "custom", "text_column": "text", "label_column": "label", "precision": "int8"}


def split(folder, name, texts, labels=("negative", "positive")):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"text": text, "label": labels[at % len(labels)]}) for at, text in enumerate(texts)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


@pytest.fixture
def recipe(tiny_distilbert, tmp_path):
    def make(**more):
        place = {"model": str(tiny_distilbert), "data": str(tmp_path / "data"), "output": str(tmp_path / "bundle")}
        return Recipe.make(CUSTOM | place | more)

    return make


def numbered(*numbers):
    return [f"the film of year {number}" for number in numbers]


@pytest.mark.parametrize("method", ["entropy", "auto"])
def test_rows_that_are_evaluated_are_left_out_and_counted(recipe, tmp_path, caplog, method):
    split(tmp_path / "data", "train", [*numbered(*range(100)), *numbered(0, 1)])
    split(tmp_path / "data", "validation", [text.upper() for text in numbered(0, 1, 1, 40, *range(200, 236))])
    resolved = resolve(recipe(calib_method=method))
    with caplog.at_level(logging.WARNING):
        check_data(resolved)
    used = {*resolved.calibration_rows.texts, *(resolved.holdout_rows.texts if method == "auto" else [])}
    assert used == {(text,) for text in numbered(*range(2, 40), *range(41, 100))}
    assert resolved.overlap == {"train_rows": 102, "left_out": 5, "evaluated_rows": 40, "evaluated_in_train": 4}
    assert "5 of 102 train rows are also in validation, and are not used for calibration. 4 of 40 " in caplog.text
    assert "validation rows (10.0 %) are also in train" in caplog.text


def test_it_holds_for_calibration_data_of_their_own(recipe, tmp_path):
    split(tmp_path / "data", "validation", numbered(*range(40)))
    split(tmp_path / "other", "train", numbered(*range(30, 70)))
    for place in (tmp_path / "other", tmp_path / "other/train.jsonl"):
        resolved = resolve(recipe(calib_data=str(place), calib_samples=32))
        with pytest.raises(InputError, match=r"10 of 40 rows are also rows to evaluate, and the other 30 are too few"):
            check_data(resolved)
    split(tmp_path / "other", "train", numbered(*range(30, 72)))
    resolved = resolve(recipe(calib_data=str(tmp_path / "other")))
    assert resolved.train_rows.texts == [(text,) for text in numbered(*range(40, 72))]


def test_few_rows_that_are_not_evaluated_are_enough_with_a_warning(recipe, tmp_path, caplog):
    split(tmp_path / "data", "train", numbered(*range(8)))
    split(tmp_path / "data", "validation", numbered(*range(8, 40)))
    resolved = resolve(recipe())
    check_data(resolved)
    assert (len(resolved.calibration_rows), resolved.overlap) == (8, None)
    assert caplog.text.count("train.jsonl: only 8 rows are left to calibrate with, so the ranges may be") == 1


def test_another_split_that_is_evaluated_is_left_out(recipe, tmp_path):
    split(tmp_path / "data", "train", numbered(*range(60)))
    split(tmp_path / "data", "test", numbered(0))
    assert len(resolve(recipe(split="test")).train_rows) == 59
    with pytest.raises(InputError, match="all of these rows are also rows to evaluate"):
        check_data(resolve(recipe(split="train")))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_faults_are_found_before_the_export(recipe, tmp_path, monkeypatch, precision):
    monkeypatch.setattr("toolchain.checkpoint.export.export", lambda *_: pytest.fail("it was exported"))
    texts = numbered(*range(60))
    for name, labels, fault in (("train", ("positive", "meh"), "'meh'"), ("validation", ("positive", 7), "7")):
        split(tmp_path / "data", "train", texts)
        split(tmp_path / "data", "validation", numbered(*range(60, 99)))
        split(tmp_path / "data", name, texts, labels)
        with pytest.raises(InputError, match=rf"{name}\.jsonl: row 2 has the label {fault}, which is not among"):
            build(recipe(precision=precision))
    with pytest.raises(InputError, match=r"row 1 has the label 'the film.*are probably swapped"):
        build(recipe(precision=precision, text_column="label", label_column="text"))
    with pytest.raises(InputError, match="there is no column 'body'"):
        build(recipe(precision=precision, text_column="body"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="The folder has no table file"):
        build(recipe(precision=precision, data=str(tmp_path / "empty")))
    assert not (tmp_path / "bundle").exists()


def test_validation_rows_change_no_rows_of_the_calibration(recipe, tmp_path):
    split(tmp_path / "data", "train", numbered(*range(80)))
    alone = resolve(recipe(calib_samples=40)).calibration_rows
    split(tmp_path / "data", "validation", numbered(*range(80, 120)))
    assert resolve(recipe(calib_samples=40)).calibration_rows.digest == alone.digest


def test_rows_of_one_file_are_divided_alike_for_build_and_evaluation(recipe, tmp_path):
    split(tmp_path / "data", "all", np.repeat(numbered(*range(80)), 2))
    resolved = resolve(recipe(data=str(tmp_path / "data/all.jsonl"), validation_share=0.4))
    check_data(resolved)
    assert resolved.overlap is None
    assert not {*resolved.train_rows.texts} & {*resolved.evaluated_rows.texts}


def test_rows_that_are_too_long_are_counted_before_the_build(recipe, tmp_path, caplog):
    split(tmp_path / "data", "train", [" ".join(["film"] * count) for count in range(1, 41)])
    with caplog.at_level(logging.WARNING):
        check_data(resolve(recipe(max_length=12)))
    assert "train.jsonl: 30 of 40 rows are longer than --max-length 12" in caplog.text
    caplog.clear()
    check_data(resolve(recipe(max_length=42)))
    assert "longer" not in caplog.text


@pytest.mark.parametrize("pair", [False, True])
def test_a_row_is_cut_if_it_has_more_tokens_than_the_limit(tiny_distilbert, pair):
    resolved = resolve(Recipe(model=str(tiny_distilbert), max_length=9))
    texts = [("film " * one, "cat " * other)[: 1 + pair] for one in range(9) for other in (range(5) if pair else (0,))]
    whole = resolved.tokenizer(*map(list, zip(*texts, strict=True)))["input_ids"]
    assert resolved.find_cut(texts, resolved.encode(texts).lengths).tolist() == [len(ids) > 9 for ids in whole]
