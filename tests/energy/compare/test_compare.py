"""A comparison from the order of its blocks to its table: with windows made by hand, and with a real load."""

import json
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import toolchain.energy.compare
from toolchain.cli.show.pairs import compared_energy
from toolchain.energy import protocol as protocols
from toolchain.energy.compare import blocks, compare_energy, judge
from toolchain.energy.compare.blocks import describe, in_blocks, measure, shuffle
from toolchain.energy.compare.contenders import Contender, Load
from toolchain.energy.compare.record import Comparison, record_of
from toolchain.energy.load import Piece, Work
from toolchain.energy.protocol import Protocol, Run, Trial, WarmUp
from toolchain.errors import MachineError, UsageError
from toolchain.evaluation.results import find_results
from toolchain.meters.energy import EnergyMeter, Window
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, Inventory, Source

BOARD_0 = (BOARD, "GPU-0")
MISSING = {
    "gpu_memory": ("not_supported", ""),
    "cpu_package": ("rapl_absent", "no such zone"),
    "cpu_dram": ("rapl_absent", "no such zone"),
}


def no_log(line):
    pass


class Rows872(list):
    """The rows of a comparison, of which only their number and digest are used."""

    digest = "0" * 64

    def __len__(self):
        return 872


def contender(name, device="cuda:0", max_length=128):
    backend, precision = name.split()
    target = SimpleNamespace(
        backend=backend,
        precision=precision,
        device=device,
        artefact={"file": f"{name}.onnx", "sha256": "0" * 64},
        bundle=SimpleNamespace(path=Path("engines/it")),
        resolved=SimpleNamespace(
            max_length=max_length, task=SimpleNamespace(name="sst2"), recipe=SimpleNamespace(split="validation")
        ),
    )
    return Contender(name, target)


def power_meter(missing=MISSING, power=True):
    """Return a meter with a board's power sensor, or without sources; tests make their own windows."""
    sources = [Source(*BOARD_0, INTEGRAL, lambda: 60.0)] if power else []
    reasons = dict(missing) if power else {BOARD: ("no_nvml_library", "not found"), **missing}
    return EnergyMeter(Inventory(sources, missing=reasons), clock=lambda: 0.0, sleep=lambda seconds: None)


def trial(joules, *, rows=6000.0, reason=None):
    """Return a window of 30 s with these joules a row."""
    window = Window(
        0.0, 30.0, {} if reason else {BOARD_0: joules * rows}, {BOARD_0: reason} if reason else {}, {}, {}, {}
    )
    return Trial(window, Work(calls=rows / 32, rows=rows, tokens=20 * rows, slots=25 * rows))


def played(names, window, *, blocks=10):
    """Return the record of a comparison with these windows."""
    order = shuffle(names, blocks, seed=3)
    runs = {name: Run(warm_up=WarmUp(12.0, True)) for name in names}
    for block, name in in_blocks(order):
        runs[name].trials.append(window(name, block))
    comparison = Comparison(
        [contender(name) for name in names], Rows872(), Protocol(windows=blocks, seed=3), order, runs
    )
    return record_of(comparison, power_meter())


def noisy(means, noise=0.03):
    """Return a function of windows: mean joules a row of each contender, with independent noise in each window."""
    factors = {name: 1 + noise * np.random.default_rng(index).standard_normal(50) for index, name in enumerate(means)}
    return lambda name, block: trial(means[name] * factors[name][block])


def shown(record, capsys):
    compared_energy({**record, "file": "it.json"})
    return capsys.readouterr().out


def test_the_order_is_random_in_each_block_and_given_by_the_seed():
    names = ["a", "b", "c"]
    order = shuffle(names, 30, seed=1)
    assert all(sorted(block) == names for block in order)
    assert len({tuple(block) for block in order}) == 6
    assert order == shuffle(names, 30, seed=1) != shuffle(names, 30, seed=2)


def test_windows_are_measured_in_the_order_and_paired_by_block():
    measured = []

    def window(name, block):
        measured.append((block, name))
        return trial(1.0 + block + (name == "ort int8"))

    record = played(["torch fp32", "ort int8"], window)
    assert measured == [(block, name) for block, names in enumerate(record["blocks"]) for name in names]
    assert [one["per_inference_j"] for one in record["contenders"][1]["windows"]] == [2.0 + k for k in range(10)]
    logs = np.log((2.0 + np.arange(10)) / (1.0 + np.arange(10)))
    assert record["comparisons"][0]["ratio"] == pytest.approx(np.exp(logs.mean()))


def test_ten_percent_less_energy_is_in_the_record_and_on_the_screen(capsys):
    record = played(
        ["torch fp32", "ort int8", "trt int8"], noisy({"torch fp32": 0.02, "ort int8": 0.02, "trt int8": 0.018})
    )
    json.dumps(record, allow_nan=False)
    assert [found["verdict"] for found in record["comparisons"]] == ["not resolved", "resolved"]
    assert record["comparisons"][1]["difference_percent"] == pytest.approx(-10, abs=3)
    low, high = record["contenders"][2]["ci95"]
    assert low < record["contenders"][2]["per_inference_j"] < high
    assert record["contenders"][0]["per_token_j"] == pytest.approx(record["contenders"][0]["per_inference_j"] / 20)
    text = shown(record, capsys)
    assert "10 blocks of 30 s, each at its full throughput" in text
    assert "baseline" in text
    assert "ort int8: not resolved: the interval contains 1" in text
    assert "% less energy per row than torch fp32" in text
    assert "not measured: cpu_package: this machine lacks a RAPL counter" in text


def test_less_energy_at_the_same_power_is_shown_as_throughput(capsys):
    windows = {"torch fp32": trial(0.02), "trt fp16": trial(0.01, rows=12000.0)}
    record = played([*windows], lambda name, block: windows[name])
    found = record["comparisons"][0]
    assert (found["throughput_ratio"], found["mean_power_ratio"]) == (pytest.approx(2), pytest.approx(1))
    assert "trt fp16: both draw the same power" in shown(record, capsys)


def test_a_lost_window_is_dropped_from_its_pair_and_counted(capsys):
    lost = {("trt int8", 0), ("torch fp32", 4)}

    def window(name, block):
        return trial(0.02 if name[0] == "t" else 0.01, reason="counter_reset" if (name, block) in lost else None)

    record = played(["torch fp32", "trt int8"], window)
    assert (record["comparisons"][0]["blocks"], record["comparisons"][0]["dropped"]) == (8, 2)
    line = describe("trt int8", window("trt int8", 0))
    assert line == "trt int8, 200 rows/s, gpu_board has no reading (counter_reset)"
    assert "blocks left out because a window in them was dropped: 2" in shown(record, capsys)


def test_a_contender_that_lost_its_gpu_has_no_figure_and_is_not_compared(capsys):
    record = played(
        ["torch fp32", "trt int8"], lambda name, block: trial(0.01, reason="gpu_lost" if block > 1 else None)
    )
    assert {one["per_inference_j"] for one in record["contenders"]} == {None}
    found = record["comparisons"][0]
    assert (found["ratio"], found["verdict"], found["reason"]) == (None, "not resolved", "gpu_lost")
    assert "n/a (gpu_lost)" in shown(record, capsys)
    with pytest.raises(MachineError, match=r"^torch fp32: its energy cannot be measured \(gpu_lost"):
        judge(record)


def test_few_blocks_give_a_ratio_without_an_interval(capsys):
    record = played(["torch fp32", "ort int8"], noisy({"torch fp32": 0.02, "ort int8": 0.01}), blocks=3)
    assert record["comparisons"][0]["reason"] == "too_few_blocks"
    assert {one["ci95"] for one in record["contenders"]} == {None}
    assert "about 10 blocks would resolve ort int8: --energy-windows 10" in shown(record, capsys)


def test_differences_between_contenders_are_flagged_and_flags_of_some_have_their_names():
    comparison = Comparison(
        [contender("torch fp32", "cpu"), contender("trt int8", max_length=64)], Rows872(), Protocol()
    )
    comparison.runs = {"trt int8": Run([trial(0.01)] * 5, WarmUp(120.0, False))}
    record = record_of(comparison, power_meter())
    assert record["flags"] == [
        "contenders run on different devices, so their totals add up different components",
        "contenders truncate rows at different lengths, so a row is not the same work for all of them",
        "trt int8: not steady after 120 s of warm-up",
    ]
    assert (record["status"], record["contenders"][0]["reason"]) == ("partial", "rapl_absent")
    assert record["comparisons"][0]["reason"] == "rapl_absent"


def numbers(value):
    """Return every number below `value`, by key."""
    if isinstance(value, dict):
        return [number for key, entry in value.items() if key not in ("schema", "seed") for number in numbers(entry)]
    if isinstance(value, list):
        return [number for entry in value for number in numbers(entry)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_nothing_measurable_is_null_with_reasons(capsys):
    comparison = Comparison([contender("torch fp32"), contender("trt int8")], Rows872(), Protocol())
    record = record_of(comparison, power_meter(power=False))
    assert (record["status"], record["reason"], record["flags"]) == ("unavailable", "no_nvml_library", [])
    assert numbers(record["contenders"]) == []
    assert numbers([{**found, "blocks": None, "dropped": None} for found in record["comparisons"]]) == []
    text = shown(record, capsys)
    assert "Energy, sst2 validation, 872 rows: not measured" in text
    assert "trt int8: not compared: this machine lacks an NVIDIA driver" in text
    assert "next: toolchain doctor" in text


class Board:
    """A GPU whose counter follows the power of the running load and ticks every 5 ms."""

    def __init__(self, clock):
        self.clock, self.joules, self.since, self.watts = clock, 0.0, clock(), 10.0

    def draw(self, watts):
        self.read()
        self.watts = watts

    def read(self):
        now = self.clock()
        self.joules, self.since = self.joules + self.watts * (now - self.since), now
        return self.joules - self.joules % (self.watts * 0.005)


@pytest.fixture
def hurried(monkeypatch):
    """Make windows short: these tests check which load a window is of, not its precision."""
    for name, value in {"LEAST_WINDOW_S": 0.1, "LEAST_TICKS": 2, "LEAD_IN_S": 0.05, "LATE_S": 0.05}.items():
        monkeypatch.setattr(protocols, name, value)
    monkeypatch.setattr(blocks, "LEAD_OUT_S", 0.01)


def board_and_loads(**watts):
    """Return a meter of a board, and loads that draw these watts in calls of 2 ms."""
    board = Board(time.monotonic)
    piece = Piece({"input_ids": np.ones((4, 8), np.int32)}, rows=4, tokens=20)

    def load(drawn):
        def infer(batch):
            board.draw(drawn)
            time.sleep(0.002)
            return np.zeros((4, 2), np.float32)

        return Load(infer, [piece], 32)

    meter = EnergyMeter(Inventory([Source(*BOARD_0, COUNTER, board.read)]))
    return meter, {name: load(drawn) for name, drawn in watts.items()}


@pytest.mark.usefixtures("hurried")
def test_each_window_is_of_its_own_contender_under_load():
    meter, loads = board_and_loads(light=30.0, heavy=90.0)
    protocol = Protocol(window_s=0.1, windows=3, warmup_s=0.05)
    runs = measure(loads, shuffle(["light", "heavy"], 3, seed=0), meter, protocol, log=no_log)
    for name, watts in (("light", 30.0), ("heavy", 90.0)):
        assert not runs[name].warm_up.steady
        found = [one.window.joules[BOARD_0] / one.window.seconds for one in runs[name].trials]
        assert found == pytest.approx([watts] * 3, rel=0.05)
        assert all(one.work.rows > 0 for one in runs[name].trials)  # how many depends on the machine's load


@pytest.mark.usefixtures("hurried")
def test_a_contender_that_does_not_reach_the_rate_is_named():
    meter, loads = board_and_loads(slow=30.0)
    protocol = Protocol(window_s=0.1, windows=1, warmup_s=0.05, rate=5000.0)
    with pytest.raises(UsageError, match=r"^slow: --rate 5000: this backend reaches "):
        measure(loads, [["slow"]], meter, protocol, log=no_log)


@pytest.fixture
def without_meters(monkeypatch):
    @contextmanager
    def open_meter(device):
        yield EnergyMeter(Inventory(missing={name: ("rapl_absent", "none") for name in (BOARD, *MISSING)}))

    monkeypatch.setattr(toolchain.energy.compare, "open_meter", open_meter)


@pytest.fixture(scope="module")
def bundle(tiny_distilbert, sentences, tmp_path_factory, begun):
    from toolchain.bundle.build import build
    from toolchain.recipe import Recipe

    target = tmp_path_factory.mktemp("contest") / "bundle"
    begun("fp32", target)
    build(
        Recipe.make({"model": str(tiny_distilbert), "data": str(sentences), "precision": "fp32", "output": str(target)})
    )
    return target


def test_if_nothing_can_be_measured_nothing_runs_and_the_record_is_written(bundle, without_meters, monkeypatch):
    monkeypatch.setattr(toolchain.energy.compare, "opened", None)
    record = compare_energy([bundle], ["torch", "ort"], {"device": "cpu"}, log=no_log)
    assert [one["name"] for one in record["contenders"]] == ["torch fp32", "ort fp32.cpu"]
    assert (record["status"], record["reason"], record["n"]) == ("unavailable", "rapl_absent", 40)
    file = Path(record["file"])
    assert file.parent == bundle / "results/energy"
    assert json.loads(file.read_text()) == {key: value for key, value in record.items() if key != "file"}


def test_required_energy_that_cannot_be_measured_is_an_error_before_anything_runs(bundle, without_meters, monkeypatch):
    monkeypatch.setattr(toolchain.energy.compare, "opened", None)
    with pytest.raises(MachineError, match=r"torch fp32: its energy cannot be measured \(rapl_absent: none\)"):
        compare_energy([bundle], ["torch", "ort"], {"device": "cpu", "require_energy": True}, log=no_log)


def test_the_record_is_not_taken_for_a_result_of_eval(bundle, without_meters, tmp_path):
    from toolchain.errors import InputError

    compare_energy([bundle], ["torch", "ort"], {"device": "cpu"}, log=no_log)
    with pytest.raises(InputError, match="there are no results here"):
        find_results([bundle])


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--energy", "--max-drop", "1"], 2, "--max-drop"),
        (["--energy"], 2, "one contender"),
        (["--energy", "--backend", "ort,tpu"], 2, "'tpu' is unknown"),
    ],
)
def test_wrong_uses_of_compare_energy(bundle, capsys, options, code, message):
    from toolchain.cli import main

    assert main(["compare", str(bundle), *options]) == code
    assert message in capsys.readouterr().err
