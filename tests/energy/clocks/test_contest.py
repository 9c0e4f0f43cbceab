"""The search on the scripted GPU, in simulated time: with noise in power and throughput, and power that drifts."""

from types import SimpleNamespace

import numpy as np
import pytest

from toolchain.energy.clocks import Contest
from toolchain.energy.clocks.points import AS_FOUND, Point, scale
from toolchain.energy.clocks.record import TOO_SLOW, Search, _judged, record_of
from toolchain.energy.compare import blocks
from toolchain.energy.compare.contenders import Load
from toolchain.energy.load import Progress
from toolchain.energy.protocol import Protocol
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.nvml import visible_device
from toolchain.meters.settings import change, power_limits, read_settings, supported_clocks
from toolchain.meters.sources import open_sources

DRIFT = 0.04
CLOCKS = range(300, 1591, 15)
SCENARIO = f"""device 0 6 GPU-11111111-aaaa Tesla T4
update_ms 0 20
clocks 0 300 1590 15
drift 0 {100 * DRIFT:g} 60000
"""


def t4_w(mhz):
    """Return watts at a clock: a constant part, and a part with the square of a voltage that rises above 700 MHz."""
    volt = 0.65 + 0.4 * max(0.0, mhz - 700) / 890
    return 16 + 0.03 * mhz * volt**2


def curve(power_w):
    return "".join(f"curve 0 {mhz} {round(1000 * power_w(mhz))}\n" for mhz in CLOCKS)


class Simulated:
    """A load whose throughput follows the clock, in the time of the scripted library."""

    def __init__(self, nvml, seed, rate=lambda mhz: mhz):
        self.nvml, self.rate, self.noise, self.progress = nvml, rate, np.random.default_rng(seed), None

    def sleep(self, seconds):
        self.nvml.advance(seconds)
        if self.progress:
            rows = self.progress.done[-1][1] + seconds * self.per_s
            self.progress.done.append((rows / 8, rows, 20 * rows, 25 * rows))
            self.progress.times_s.append(self.nvml.now())

    def under_load(self, infer, work, meter, protocol, watch):
        self.per_s = self.rate(self.nvml.clock_mhz(0)) * (1 + 0.005 * self.noise.standard_normal())
        self.progress = Progress()
        self.progress.start(self.nvml.now())
        try:
            return watch(self.progress)
        finally:
            self.progress = None


def searched(nvml, monkeypatch, seed, *, power_w=t4_w, slowdown=None, power=False, rate=lambda mhz: mhz, more=""):
    """Return the record of a search whose seed is that of the noise too."""
    nvml.load(f"{SCENARIO}{curve(power_w)}noise 0 10 {seed}\n{more}")
    load = Simulated(nvml, seed, rate)
    monkeypatch.setattr(blocks, "under_load", load.under_load)
    with open_sources("cuda:0") as inventory:
        meter, gpu = EnergyMeter(inventory, nvml.now, load.sleep), visible_device(0)
        first = read_settings(gpu)
        contest = Contest(
            load=Load(None, [], 32),
            meter=meter,
            device="cuda:0",
            protocol=Protocol(window_s=5, windows=10, seed=seed),
            max_slowdown=slowdown,
            change=lambda point: change(gpu, point.of(first)),
            log=lambda line: None,
        )
        range_ = scale(supported_clocks(gpu), power_limits(gpu) if power else None)
        stages = contest.search(range_, range_.coarse(8))
        return record_of(search_of(gpu, first, stages, slowdown), meter)


def search_of(gpu, first, stages, slowdown):
    target = SimpleNamespace(
        bundle=None,
        backend="trt",
        device="cuda:0",
        precision="int8",
        artefact={"file": "model.plan", "sha256": "0" * 64},
        resolved=SimpleNamespace(task=SimpleNamespace(name="sst2"), recipe=SimpleNamespace(split="validation")),
    )
    rows = type("Rows", (list,), {"digest": "0" * 64})()
    return Search(target, gpu, rows, Protocol(), [*CLOCKS], None, [], 0.0, slowdown, [], [], first, first, stages)


def truth_j(mhz, power_w=t4_w):
    """Return the joules of a row at a clock, once the power has stopped drifting."""
    return (1 + DRIFT) * power_w(mhz) / mhz


def assert_least_is_found(record):
    least, tried = (
        min(CLOCKS, key=truth_j),
        sorted({one["sm_mhz"] for stage in record["stages"] for one in stage["points"] if one["sm_mhz"]}),
    )
    best, final = record["best"]["sm_mhz"], record["stages"][-1]["points"][-1]
    assert best == final["sm_mhz"]
    beside = [tried[max(0, tried.index(best) - 1)], tried[min(len(tried) - 1, tried.index(best) + 1)]]
    assert beside[0] <= least <= beside[1]  # within one step of the points that were tried
    assert final["per_inference_j"] == pytest.approx(truth_j(best), rel=0.01)
    assert truth_j(best) < 1.01 * truth_j(least)
    assert record["verdict"] == "resolved"


@pytest.mark.parametrize("seed", range(2))
def test_the_clock_with_the_least_energy_is_found(nvml, monkeypatch, seed):
    record = searched(nvml, monkeypatch, seed)
    assert_least_is_found(record)
    assert [stage["name"] for stage in record["stages"]] == ["coarse", "fine", "final"]
    best = record["best"]["sm_mhz"]
    assert record["keep"] == [f"nvidia-smi -i GPU-11111111-aaaa -lgc {best},{best}"]
    for stage in record["stages"]:
        first = stage["points"][0]
        assert (first["name"], first["against_found"], first["within_slowdown"]) == (AS_FOUND.name, None, True)
        assert all(sorted(order) == sorted(one["name"] for one in stage["points"]) for order in stage["blocks"])
        assert [one["measured_sm_mhz"] for one in stage["points"][1:]] == [one["sm_mhz"] for one in stage["points"][1:]]
    assert record["flags"] == []


@pytest.mark.slow
@pytest.mark.parametrize("first", range(2, 50, 12))
def test_the_clock_with_the_least_energy_is_found_with_50_seeds(nvml, monkeypatch, first):
    for seed in range(first, first + 12):
        assert_least_is_found(searched(nvml, monkeypatch, seed))


def flat_w(mhz):
    """Return watts that make every row cost the same at every clock."""
    return 0.04 * mhz


def test_a_flat_curve_is_not_resolved(nvml, monkeypatch):
    record = searched(nvml, monkeypatch, 0, power_w=flat_w)
    assert (record["best"], record["verdict"], record["keep"]) == (None, "not resolved", [])


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 50, 7))
def test_a_flat_curve_is_not_resolved_with_50_seeds(nvml, monkeypatch, first):
    for seed in range(first, first + 7):
        assert searched(nvml, monkeypatch, seed, power_w=flat_w)["best"] is None, seed


def test_a_point_that_is_too_slow_is_not_chosen(nvml, monkeypatch):
    record = searched(nvml, monkeypatch, 1, slowdown=1.1)
    fast = [one for one in CLOCKS if one >= 1590 / 1.11]
    assert record["best"] is None or record["best"]["sm_mhz"] in fast
    coarse = {one["sm_mhz"]: one for one in record["stages"][0]["points"]}
    assert not coarse[300]["within_slowdown"]
    assert coarse[1590]["within_slowdown"]


def test_the_best_point_must_be_fast_enough_when_it_is_measured_afresh():
    for fast, expected in ((True, (Point(900), None)), (False, (None, TOO_SLOW))):
        one = SimpleNamespace(point=Point(900), against={"ratio": 0.8, "reason": None}, fast_enough=fast)
        assert _judged(SimpleNamespace(points=[None, one])) == expected


def test_a_power_limit_may_be_the_best_and_its_share_of_time_is_recorded(nvml, monkeypatch):
    def steep_w(mhz):  # at 60 W the clock is 300 MHz lower than at 70 W, and a row costs a tenth less
        return 48 + 22 * ((mhz - 300) / 1290) ** 8

    record = searched(nvml, monkeypatch, 3, power_w=steep_w, power=True, rate=lambda mhz: 1000 + mhz / 10)
    limits = [one for one in record["stages"][0]["points"] if one["power_limit_w"]]
    assert [one["power_limit_w"] for one in limits] == [60, 61, 63, 64, 66, 67, 69, 70]
    assert [one["capped_share"] for one in limits[:7]] == [1.0] * 7
    assert limits[0]["per_inference_j"] < limits[-1]["per_inference_j"]
