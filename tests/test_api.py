"""The public Python API: five names, which stay functions whatever is imported, and do what the commands do."""

import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import toolchain
from toolchain.cli import COMMANDS
from toolchain.errors import GateError, InputError, MachineError, UsageError

NAMES = ("build", "evaluate", "compare", "measure_energy", "load")


@pytest.fixture(scope="module")
def built(tiny_distilbert, sentences, tmp_path_factory, begun):
    return toolchain.build(
        model=tiny_distilbert,
        data=sentences,
        precision="int8",
        output=begun("fp32", tmp_path_factory.mktemp("api") / "bundle"),
        calib_samples=20,
        keep=["*.attention.q_lin", "*.attention.k_lin"],
    )


def test_the_five_names_are_the_public_api():
    assert set(toolchain.__all__) == set(NAMES)
    assert set(NAMES) <= set(dir(toolchain))
    with pytest.raises(AttributeError, match="no attribute 'export'"):
        toolchain.export  # noqa: B018


def test_the_import_loads_no_other_module_of_ours_and_no_typing(root):
    code = "import os, sys; before = set(sys.modules); import toolchain; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['toolchain']"


def test_each_name_can_be_called_twice_after_every_module_was_imported(built):
    for module in pkgutil.walk_packages(toolchain.__path__, "toolchain."):
        if not module.name.endswith("__main__") and ".demo.make" not in module.name:
            importlib.import_module(module.name)
    bundle = built["bundle"]
    for _ in range(2):
        assert toolchain.build(model="demo", task="demo", precision="int8", dry_run=True)["would_do"]
        result = toolchain.evaluate(bundle, limit=8)
        assert result["n"] == 8
        assert toolchain.compare([result])[0]["n"] == 8
        with toolchain.measure_energy("cpu") as reading:
            sum(range(10))
        assert reading.seconds > 0
        with toolchain.load(bundle) as classifier:
            assert len(classifier(["good film"])) == 1


def test_measure_energy_is_the_measurement_of_a_block():
    from toolchain.energy.power import measure

    assert toolchain.measure_energy is measure


def test_a_second_build_of_the_bundle_finds_it_up_to_date(built):
    assert (built["skipped"], built["done"]) == (["export"], ["calibrate", "quantize"])
    assert toolchain.build(built["bundle"])["up_to_date"]


def test_a_recipe_is_a_source_and_keywords_change_it(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('model = "demo"\ntask = "demo"\nprecision = "fp32"\noutput = "there"\n')
    would = toolchain.build(recipe, precision="int8", dry_run=True)
    assert (would["bundle"], would["precision"]) == ("there", "int8")


def test_evaluate_and_compare_take_results_files_and_bundles(built):
    fp32 = toolchain.evaluate(built["bundle"], precision="fp32")
    int8 = toolchain.evaluate(built["bundle"], backend="ort")
    (found,) = toolchain.compare([fp32, int8], max_drop=50)
    assert found["verdict"] == "passes"
    assert found["drop_points"] == pytest.approx(100 * (fp32["metrics"]["accuracy"] - int8["metrics"]["accuracy"]))
    assert toolchain.compare([fp32["file"], built["bundle"]], max_drop=50) == [found]


def test_a_gate_that_fails_is_an_error_and_the_bundle_stays(built):
    with pytest.raises(GateError, match="points"):
        toolchain.build(built["bundle"], max_drop=0, strict=True)
    assert toolchain.build(built["bundle"])["up_to_date"]


def test_an_engine_that_cannot_be_had_is_an_error(built):
    with pytest.raises(MachineError, match="TensorRT"):
        toolchain.build(built["bundle"], backend="trt")


def test_an_unknown_key_is_refused_by_every_function(built):
    with pytest.raises(UsageError, match="unknown key 'precison'"):
        toolchain.build(precison="int8")
    with pytest.raises(UsageError, match="unknown key 'limits'"):
        toolchain.evaluate(built["bundle"], limits=3)
    with pytest.raises(UsageError, match="unknown key 'devices'"):
        toolchain.load(built["bundle"], devices="cpu")


def test_load_pins_the_digest_and_checks_every_file(built, tmp_path):
    digest = json.loads((Path(built["bundle"]) / "bundle.json").read_text())["sha256"]
    toolchain.load(built["bundle"], trust=digest).close()
    with pytest.raises(InputError, match="is not the trusted"):
        toolchain.load(built["bundle"], trust="0" * 64)
    shutil.copytree(built["bundle"], tmp_path / "b")
    (tmp_path / "b/tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match="changed since it was built"):
        toolchain.load(tmp_path / "b")


def words_and_numbers(text):
    """Split a text at its decimal numbers: accuracies and scores of INT8 differ a little between processors."""
    parts = re.split(r"(\d+\.\d+)", text)
    return parts[::2], [float(number) for number in parts[1::2]]


@pytest.mark.slow
def test_the_guide_runs_from_top_to_bottom_and_prints_what_it_shows(root, tmp_path, python, demo_bundle):
    shutil.copytree(demo_bundle, tmp_path / "engines/build/demo-demo-int8")  # so that it is exported once
    guide = (root / "docs/guides/python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", guide, re.DOTALL)
    assert len(blocks) == guide.count("```python")
    end = "--- end of block ---"
    script = tmp_path / "guide.py"
    script.write_text("".join(f"{code}\nprint({end!r})\n" for code, _ in blocks))
    done = subprocess.run([*python, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(f"{end}\n")
    for (code, shown), found in zip(blocks, printed[:-1], strict=True):
        if shown:
            words, numbers = words_and_numbers(found)
            expected_words, expected_numbers = words_and_numbers(shown)
            assert words == expected_words, code
            assert numbers == pytest.approx(expected_numbers, abs=0.05), code


def test_the_guide_names_the_function_of_every_other_command(root):
    rows = re.findall(
        r"^\| (`toolchain .*?) \| (`toolchain\..*) \|$", (root / "docs/guides/python.md").read_text(), re.MULTILINE
    )
    commands = {name for shown, _ in rows for name in re.findall(r"`toolchain (\w+)", shown)}
    shell_alone = {"completion"}
    assert commands | shell_alone | {"build", "eval", "compare", "power"} == set(COMMANDS)
    for _, functions in rows:
        for module, name in re.findall(r"`([\w.]+)\.(\w+)`", functions):
            assert callable(getattr(importlib.import_module(module), name))
