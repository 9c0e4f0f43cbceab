import dataclasses
import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from toolchain.errors import InputError, UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.options import load_toml

FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text('precision = "int8"\ncalib_samples = 100\nseed = 7\n')
    return path


def test_defaults_are_allowed_values() -> None:
    assert Recipe().split == "validation"


def test_flag_wins_over_set_wins_over_file_wins_over_default(file: Path) -> None:
    values = Recipe.values({"calib_samples": 300, "model": None}, sets=["calib-samples=200", "seed=8"], file=file)
    made = Recipe.make(values)
    assert (made.calib_samples, made.seed, made.precision, made.range_method) == (300, 8, "int8", "entropy")


def test_values_are_only_what_was_given(file: Path) -> None:
    assert Recipe.values({}, file=file) == {"precision": "int8", "calib_samples": 100, "seed": 7}


@pytest.mark.parametrize("key", ["allow_pickle", "trust_remote_code"])
def test_only_the_command_line_can_consent_to_run_code(file: Path, key: str) -> None:
    file.write_text(f"{key} = true\n")
    with pytest.raises(UsageError, match=rf"r\.toml: {key} can only be given on the command line.* Give --{key[:5]}"):
        Recipe.values({key: True}, file=file)
    file.write_text(f"{key} = false\n")
    assert Recipe.values({key: True}, file=file) == {key: True}
    assert Recipe.values({}, sets=[f"{key}=true"]) == {key: True}


@pytest.mark.parametrize(
    ("assignment", "value"),
    [("model=org/name", "org/name"), ("model='123'", "123"), ("force=true", True), ("atol=1", 1), ("atol=1e-3", 1e-3)],
)
def test_set_takes_toml_or_plain_text(assignment: str, value: Any) -> None:
    assert list(Recipe.values({}, sets=[assignment]).values()) == [value]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\n\r")))
def test_set_takes_any_quoted_text(text: str) -> None:
    quoted = json.dumps(text, ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # a TOML string is a JSON string but for DEL
    assert Recipe.values({}, sets=[f"split={quoted}"]) == {"split": text}


@given(st.text(string.ascii_letters + "/_.", min_size=1))
def test_set_takes_a_name_as_it_stands(text: str) -> None:
    assume(text not in {"true", "false", "inf", "nan"})
    assert Recipe.values({}, sets=[f"split={text}"]) == {"split": text}


def test_set_without_equals_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--set precision: it has no '='\. Write --set key=value\.$"):
        Recipe.values({}, sets=["precision"])


def test_unknown_key_names_the_file_and_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("precison = 'int8'")
    with pytest.raises(
        UsageError, match=r"r\.toml: unknown key 'precison'\. Did you mean precision\? The keys are .*precision"
    ):
        Recipe.values({}, file=tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "half"}, r"^--precision half: unknown\. Choose one of fp32, fp16, bf16, int8, fp8, int4\.$"),
        ({"backend": "tflite"}, r"^--backend tflite: unknown\. Choose one of torch, ort, openvino, trt"),
        ({"calib_method": "magic"}, r"^--calib-method magic: unknown"),
        ({"calib_samples": 0}, r"^--calib-samples 0: too small\. Give 1 or more\.$"),
        ({"max_length": 1}, r"^--max-length 1: too small"),
        ({"limit": 0}, r"^--limit 0: too small"),
        ({"seed": -1}, r"^--seed -1: too small"),
        ({"seed": True}, r"^--seed True: not a whole number"),
        ({"calib_samples": 1.0}, r"^--calib-samples 1\.0: not a whole number"),
        ({"force": 1}, r"^--force 1: not true or false"),
        ({"model": 3}, r"^--model 3: not text"),
        ({"precision": ["fp16"]}, r"^--precision \['fp16'\]: not text"),
        ({"atol": "x"}, r"^--atol x: not a number"),
        ({"atol": 0}, r"^--atol 0: this is not a number above 0"),
        ({"atol": float("nan")}, r"^--atol nan: this is not a number above 0"),
        ({"atol": float("inf")}, r"^--atol inf: this is not a number above 0"),
        ({"task": "custom", "text_column": "a"}, r"^--task custom: .*Give --text-column A\[,B\] and --label-column L"),
    ],
)
def test_values_out_of_range_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe.make(values)


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_has_a_help_text(name: str) -> None:
    assert FIELDS[name].metadata["help"]


def test_recipe_is_frozen_and_replaced_with_checks() -> None:
    assert Recipe().replace(seed=3) == Recipe(seed=3)
    with pytest.raises(UsageError, match="--seed"):
        Recipe().replace(seed=-3)


@pytest.mark.parametrize("data", [b"a = ", b"\xff", b"[a]\n[a]"])
def test_toml_that_is_none_is_an_input_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r.toml").write_bytes(data)
    with pytest.raises(InputError, match=r"r\.toml: this is not a valid TOML file: .*\. Fix the file\.$"):
        load_toml(tmp_path / "r.toml")


def test_toml_that_is_missing_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.toml: No such file or directory\. Give the path"):
        load_toml(tmp_path / "no.toml")
    with pytest.raises(InputError, match=r"not a regular file\. Replace it with a file"):
        load_toml(tmp_path)


ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for folder in ("engines", "calibration") for path in (ROOT / folder).glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_recipe_in_the_repository_loads(path: Path) -> None:
    assert Recipe.make(Recipe.values({}, file=path))


def test_what_tensorrt_would_pass_over_or_cannot_load_later_is_refused() -> None:
    with pytest.raises(UsageError, match="--calibrator tensorrt: TensorRT ignores it"):
        Recipe(calibrator="tensorrt")
    with pytest.raises(UsageError, match="--version-compatible: it cannot be used with --attention plugin"):
        Recipe(version_compatible=True, attention="plugin")
