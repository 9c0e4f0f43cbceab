"""The gate on built bundles: the results that it compares, and its verdicts."""

import json
import shutil
from pathlib import Path

import pytest

from toolchain.cli import main
from toolchain.diagnose import gate as module
from toolchain.diagnose.gate import _preference, compare_results, gate, judge
from toolchain.errors import GateError, InputError
from toolchain.recipe import Recipe
from toolchain.workflow import evaluate


def quiet(line):
    pass


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, build_tiny):
    target = tmp_path_factory.mktemp("gate") / "bundle"
    build_tiny(target)
    return target


def test_both_int8_graphs_are_compared_with_pytorch(bundle):
    records, deployment = gate(bundle, Recipe(max_drop=50.0), tell=quiet)
    assert [record["candidate_name"] for record in records] == ["ort int8.cpu", "ort int8.halves"]
    assert {record["baseline_name"] for record in records} == {"torch-fp32"}
    assert {record["n"] for record in records} == {40}
    json.dumps(records, allow_nan=False)
    assert json.loads((bundle / "results/gate/gate.json").read_text()) == deployment
    assert (deployment["file"], deployment["verdict"]) == ("model.int8.cpu.onnx", "passes")
    assert deployment["speed_up"] > 0
    assert deployment["fp32_bytes"] == (bundle / "model.onnx").stat().st_size
    assert [one["bytes"] for one in deployment["candidates"]] == [
        (bundle / one["file"]).stat().st_size for one in deployment["candidates"]
    ]
    assert [one["halves"] for one in deployment["candidates"]] == [False, True]
    assert deployment["next"] == f"toolchain serve {bundle}"


def test_the_rows_of_one_table_are_timed_too(build_tiny, sentences, tmp_path):
    train, validation = ((sentences / f"{split}.csv").read_text().splitlines() for split in ("train", "validation"))
    table = tmp_path / "all.csv"
    table.write_text("\n".join([*train, *validation[1:]]) + "\n")
    build_tiny(tmp_path / "bundle", data=str(table), validation_share=0.4)
    recipe = Recipe(data=str(table), max_drop=50.0)
    records, deployment = gate(tmp_path / "bundle", recipe, tell=quiet)
    assert records[0]["n"] < 60
    assert deployment["speed_up"] > 0


def test_one_place_is_compared_with_its_reference_and_several_with_the_first(bundle):
    evaluate({"backend": "torch"}, bundle=bundle, tell=quiet)
    alone = compare_results([bundle], Recipe(), tell=quiet)
    torch = next(record for record in alone if record["candidate_name"] == "torch fp32")
    assert (torch["drop_points"], torch["flips"]) == (0, {"lost": 0, "gained": 0, "changed": 0})
    files = [bundle / f"results/sst2-validation-{name}.json" for name in ("torch-cpu-fp32", "ort-cpu-int8.cpu")]
    pair = compare_results(files, Recipe(), tell=quiet)
    assert pair[0]["baseline_name"] == "torch fp32"
    assert pair[0]["drop_points"] == next(r for r in alone if r["candidate_name"] == "ort int8.cpu")["drop_points"]


def test_a_bundle_without_results_is_evaluated(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "other", ignore=shutil.ignore_patterns("results"))
    records = compare_results([bundle, tmp_path / "other"], Recipe(), tell=quiet)
    assert records[0]["candidate_name"] == "other: ort int8.cpu"
    assert (tmp_path / "other/results").exists()


@pytest.mark.parametrize("change", [{"limit": 10}, {"split": "train"}, {"task": "custom"}])
def test_other_rows_or_another_task_are_refused(bundle, sentences, tmp_path, change):
    if "split" in change:
        data = tmp_path / "data"
        data.mkdir()
        lines = (sentences / "validation.csv").read_text().splitlines()
        (data / "validation.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
        change = {"data": str(data)}
    if "task" in change:
        change |= {"text_column": "sentence", "label_column": "label"}
    other = evaluate({"backend": "torch", **change}, bundle=bundle, tell=quiet)
    kept = Path(other["file"]).rename(tmp_path / "other.json")
    first = evaluate({"backend": "torch"}, bundle=bundle, tell=quiet)
    with pytest.raises(InputError, match=r"rows of .*, but .* is for \d+ rows of sst2"):
        compare_results([Path(first["file"]), kept], Recipe(), tell=quiet)


def record(verdict, **changes):
    return {
        "candidate_name": "ort int8",
        "metric": "accuracy",
        "drop_points": 0.69,
        "max_drop_points": 0.5,
        "n": 872,
        "rows_to_tell": 4100,
        "verdict": verdict,
        **changes,
    }


def test_of_a_bundles_results_the_most_rows_win_then_the_graph_for_the_device_then_the_latest():
    def result(n, variant, created, device="cpu"):
        return {"n": n, "variant": variant, "created": created, "device": device}

    worst_first = [
        result(10, "int8.cpu", "2026-01-03"),
        result(20, "int8", "2026-01-02"),
        result(20, "int8.cpu", "2026-01-01"),
        result(20, "int8", "2026-01-02", device="cuda:0"),
    ]
    assert sorted(reversed(worst_first), key=_preference) == worst_first


def test_a_failed_gate_is_an_error_and_one_that_cannot_tell_a_warning(caplog):
    judge([record("passes"), record("cannot tell")], strict=False)
    with pytest.raises(GateError, match=r"by 0\.69 points, and the limit is 0\.5\. To see why: toolchain explain\.$"):
        judge([record("passes"), record("fails")], strict=False)
    with pytest.raises(GateError, match=r"To see why: toolchain verify; next command: toolchain build b$"):
        judge([record("fails", candidate_name="ort fp16.halves")], strict=False, way_on="toolchain build b")
    with pytest.raises(GateError, match=r"0\.5\. To see why: toolchain verify b$"):
        judge([record("fails", candidate_name="ort fp32")], strict=False, way_on="toolchain verify b")
    with pytest.raises(GateError, match=r"872 rows cannot tell .* within 0\.5\. Evaluate about 4,100 rows\."):
        judge([record("cannot tell")], strict=True)


def test_without_its_original_a_shrunk_checkpoint_does_not_pass_its_gate(monkeypatch, caplog):
    monkeypatch.setattr(module, "_compare", lambda *_, **__: record("passes", baseline_name="torch-fp32"))
    assert module._compare_with_fp32({}, Recipe(), None)["verdict"] == "passes"
    found = module._compare_with_fp32({}, Recipe(), "org/big")
    assert found["verdict"] == "cannot tell"
    judge([found], strict=False)
    assert "cannot tell: the original of the shrunk checkpoint, org/big, cannot be found" in caplog.text


def test_gates_that_cannot_tell_are_one_warning(caplog):
    unsure = [record("cannot tell", rows_to_tell=rows, candidate_name=name) for rows, name in ((90, "a"), (4000, "b"))]
    judge([*unsure, record("passes")], strict=False)
    (warning,) = caplog.messages
    assert "a and b: the drop of accuracy is 0.69 and 0.69 points; 872 rows cannot tell" in warning
    assert warning.endswith("Evaluate about 4,000 rows.")
    with pytest.raises(GateError, match="the limit is"):
        judge([*unsure, record("fails")], strict=True)


def test_the_command_line_gates(bundle, capsys, monkeypatch):
    assert main(["build", str(bundle), "--max-drop", "90", "--json"]) == 0
    gated = json.loads(capsys.readouterr().out)["gate"]
    assert [entry["verdict"] for entry in gated] == ["passes", "passes"]
    assert main(["compare", str(bundle), "--max-drop", "0.001"]) in (0, 3)
    assert "cannot tell" in (shown := capsys.readouterr()).out + shown.err
    assert main(["compare", str(bundle), "--max-drop", "0.001", "--strict"]) == 3
    assert main(["compare", str(bundle), "--max-drop", "nan"]) == 2
    assert main(["compare", str(bundle), "--max-drop", "1", "--confidence", "0.5"]) == 2
    assert main(["compare", str(bundle), "--strict"]) == 2
    assert main(["compare", str(bundle / "nothing.json")]) == 1
