"""`make bench`: its arithmetic on made-up times, the graphs of other tools, and one short run."""

import importlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.forked.server import EXECUTABLE


@pytest.fixture
def bench(root, monkeypatch):
    """Return a module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module


@pytest.fixture
def timed(bench):
    """Return calls with these times and the same result."""
    return lambda times, gave=None: [bench("interleave").Timed(wall_s, gave) for wall_s in times]


def test_a_ratio_is_taken_within_each_round(bench, timed):
    found = bench("interleave").ratio(timed([4.0, 80.0, 6.0]), timed([2.0, 20.0, 2.0]))
    assert (found.median, found.low, found.high) == (3.0, 2.0, 4.0)


def test_every_contender_runs_once_a_round_after_a_warm_up_round(bench):
    order = []
    found = bench("interleave").interleaved({name: lambda name=name: order.append(name) or name for name in "abc"}, 4)
    assert [sorted(order[start : start + 3]) for start in range(0, 15, 3)] == [["a", "b", "c"]] * 5
    assert {name: [call.gave for call in calls] for name, calls in found.items()} == {
        name: [name] * 4 for name in "abc"
    }


def test_the_table_has_throughput_accuracy_and_time_outside_the_runtime(bench, timed):
    speed = bench("speed")
    right, wrong = speed.Pass(np.eye(4)), speed.Pass(np.zeros((4, 4)), runtime_s=0.5)
    calls = {"pipeline": timed([4.0, 4.0], right), "ort INT8": timed([1.0, 2.0], wrong)}
    first, ours = speed.tabulate(calls, lambda found: float(found.logits.argmax(1).tolist() == [0, 1, 2, 3]), 40)
    assert (first.rows_per_s, first.points_below, first.outside, first.ours) == (10, 0, None, False)
    assert (ours.rows_per_s, ours.to_pipeline.median, ours.points_below, ours.ours) == (40 / 1.5, 3.0, 100, True)
    assert ours.outside == pytest.approx((0.5 + 0.75) / 2, abs=0.01)


def test_a_target_is_met_missed_or_does_not_apply(bench):
    targets = bench("targets")
    names = [target.figure for target in targets.TARGETS]
    found = dict(zip(names, (5.0, 1.0, 1.09, 1.2, 1.14, 1.2, 0.11, 0.5), strict=True))
    with_amx = targets.judge(found, frozenset({"amx_bf16"}))
    assert [one.met for one in with_amx] == [True, False, False, True, False, True, False, True]
    del found[names[2]]
    without = targets.judge(found, frozenset())
    assert [one.met for one in without] == [True, None, None, True, False, True, False, True]
    assert [one.word for one in without if one.met is None] == [
        "does not apply: the CPU lacks amx_bf16",
        "not measured",
    ]


def test_the_best_of_ours_is_compared_with_the_best_int8_of_other_tools(bench, timed):
    speed, targets = bench("speed"), bench("targets")
    times = {
        "pipeline": 9,
        "ort FP32": 1,
        "openvino NNCF INT8": 3,
        "ort dynamic INT8": 4,
        "ort INT8": 2,
        "torch FP32": 6,
    }
    calls = {name: timed([wall_s] * 2, speed.Pass(np.eye(2))) for name, wall_s in times.items()}
    table = speed.tabulate(calls, lambda found: 1.0, 2)
    assert targets.ratios(speed.Speed(table, {}, calls, 2))[targets.BEST].median == 1.5
    del calls["ort INT8"], calls["torch FP32"]
    table = speed.tabulate(calls, lambda found: 1.0, 2)
    assert targets.BEST not in targets.ratios(speed.Speed(table, {}, calls, 2))


def test_columns_are_aligned_and_numbers_are_on_the_right(bench):
    table = bench("table")
    cells = [("", "rows/s"), ("pipeline", "9"), ("ours", "1234")]
    assert table.plain(cells) == "          rows/s\npipeline       9\nours        1234\n"
    assert table.markdown(cells) == "|  | rows/s |\n| --- | ---: |\n| pipeline | 9 |\n| ours | 1234 |\n"


@pytest.mark.parametrize("method", ["dynamic", "minmax", "percentile"])
def test_onnx_runtimes_own_tools_give_graphs_that_run_with_a_scale_per_channel(
    bench, exported, tokens_of, tmp_path, method
):
    from toolchain.runtimes.batched import run
    from toolchain.runtimes.ort import open_ort

    quantized, made, tokens = bench("quantized"), tmp_path / "made.onnx", tokens_of("distilbert", 40)
    if method == "dynamic":
        quantized.dynamic(exported["distilbert"], made)
    else:
        quantized.static(exported["distilbert"], made, tokens, method=method)
    with open_ort(made, device="cpu") as infer:
        assert np.isfinite(run(infer, tokens).logits).all()
    model = quantized.onnx.load(made)
    assert ("MatMulInteger" if method == "dynamic" else "QuantizeLinear") in {node.op_type for node in model.graph.node}
    arrays = {one.name: quantized.onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    weights = [name for name, array in arrays.items() if array.dtype == np.int8 and array.ndim == 2]
    scales = [arrays[name.replace("_quantized", "_scale")] for name in weights]
    assert len(weights) >= 12
    assert sum(scale.ndim == 1 and len(scale) > 1 for scale in scales) >= 12


@pytest.mark.slow
def test_it_runs_on_the_demo_and_writes_its_figures(root, tmp_path, python, commands, demo_bundle):
    for place in (tmp_path, tmp_path / "before"):  # so that it is exported once
        shutil.copytree(demo_bundle, place / "bundle")
    kept = tmp_path / "bench.json"
    only = ("optimum ORTModel", "ort dynamic INT8", "openvino FP32", "ort FP32 cpu", "ort INT8", "ort INT8 of --before")
    options = ("--rounds", "1", "--rows", "16", "--calib-method", "minmax", "--demo", "--costs", "--before", str(root))
    places = ("--keep", str(tmp_path), "-o", str(kept))
    command = [*python, str(root / "benchmarks/run.py"), *options, *places, "--only", *only]
    environment = {"PYTHONPATH": str(root), EXECUTABLE: str(commands / "python")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(kept.read_text())
    ran = {name.removesuffix(", rows/s") for name in found["figures"] if name.endswith(", rows/s")}
    assert ran | set(found["left_out"]) == {"pipeline", *only}
    assert {"pipeline", "ort dynamic INT8", "ort FP32 cpu", "ort INT8", "ort INT8 of --before"} <= ran
    assert found["figures"]["ort FP32 cpu, points below the pipeline"] == 0
    assert found["figures"]["ort INT8 of --before, accuracy"] == found["figures"]["ort INT8, accuracy"]
    assert all(name in done.stdout for name in ran)


def test_each_seed_heals_a_copy_in_the_same_folder_and_a_refused_one_has_no_drop(bench, monkeypatch, tmp_path, capsys):
    module, places = bench("heal"), []
    monkeypatch.setattr(module, "built", lambda task, method, folder: folder / task)
    monkeypatch.setattr(module, "healed", lambda bundle, seed, folder: (places.append(folder), ("no nearer", 0.5))[1])
    monkeypatch.setattr(sys, "argv", ["heal.py", "--tasks", "mrpc", "stsb", "--keep", str(tmp_path), "--seeds", "2"])
    module.main()
    assert len(places) == 4
    assert len({*places}) == 1
    shown = capsys.readouterr().out
    assert shown.count('"refused": "no nearer"') == 4
    assert re.search(rf"{module.FURTHER} +<= 0 +4.00 +not met", shown)
    assert re.search(rf"{module.DROP} +<= 0.5 +not measured", shown)  # and not 0
