import json
import re
from pathlib import Path
from typing import Any

import pytest

from toolchain.energy.load import Work
from toolchain.energy.protocol import Idle, Protocol, Run, Trial
from toolchain.energy.record import Carbon, block, unavailable
from toolchain.energy.text import REASONS, describe
from toolchain.meters.energy import Window
from toolchain.meters.readings import Readings
from toolchain.meters.sources import BOARD, COUNTER, Inventory, Source

# The energy block of a result, as the design has it.
DESIGN = json.loads(
    """{"status": "", "reason": null, "components": {"gpu_board": {}, "cpu_package": {}, "cpu_dram": {}},
    "windows": [], "window_s": null, "inferences": null, "total_j": null, "per_inference_j": null,
    "per_token_j": null, "per_correct_j": null, "mean_power_w": null, "ci95": null}"""
)
COMPONENT = {"joules", "method", "reason", "counted", "devices"}


def numbers(value: Any) -> list[float]:
    """Return every number below `value`."""
    if isinstance(value, dict):
        return [number for entry in value.values() for number in numbers(entry)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_the_block_has_the_keys_of_the_design() -> None:
    found = unavailable("not_requested", device="cpu")
    assert found.keys() >= DESIGN.keys()
    assert found["components"].keys() >= DESIGN["components"].keys()
    assert all(component.keys() >= COMPONENT for component in found["components"].values())


def test_unmeasured_values_are_null_with_a_reason_and_never_0() -> None:
    found = unavailable("no_nvml_library", device="cuda:0")
    assert numbers(found) == []
    assert (found["status"], found["reason"]) == ("unavailable", "no_nvml_library")
    assert {component["reason"] for component in found["components"].values()} == {"no_nvml_library"}


@pytest.mark.parametrize(("device", "counted"), [("cpu", False), ("cuda:0", True)])
def test_the_board_counts_where_the_device_is_a_gpu(device: str, counted: bool) -> None:
    assert unavailable("x", device=device)["components"]["gpu_board"]["counted"] is counted


def test_two_blocks_share_no_objects() -> None:
    one, other = (unavailable("x", device="cpu") for _ in range(2))
    one["windows"].append(1)
    one["components"]["gpu_board"]["devices"].append(1)
    assert other == unavailable("x", device="cpu")


class Meter:
    """The part of a meter that a block uses: its GPU has a counter, its processor has none."""

    def __init__(self) -> None:
        self.tick_s, self.inventory = 0.1, Inventory()
        self.states: dict[str, Any] = {}
        self.missing = dict.fromkeys(("cpu_package", "cpu_dram"), ("rapl_absent", "")) | {"gpu_memory": ("no_such", "")}
        counter = Readings(Source(BOARD, "GPU-1", COUNTER, lambda: 0.0), tick_s=0.1)
        self.readings = {(BOARD, "GPU-1"): counter}
        self.components = {BOARD}


class WholeMeter(Meter):
    """The same for a machine whose processor is measured too, at 0 W."""

    def __init__(self, *, lacks: str | None = None) -> None:
        super().__init__()
        self.missing = {BOARD: ("not_supported", f"not_supported: {lacks}")} if lacks else {}
        for name in ("gpu_memory", "cpu_package", "cpu_dram"):
            self.readings[name, "package-0"] = Readings(Source(name, "package-0", "rapl", lambda: 0.0))
        self.components = {name for name, _ in self.readings}


def trial(joules: float | None, *, rows: float = 1000, seconds: float = 6, integral_j: float | None = None) -> Trial:
    key = (BOARD, "GPU-1")
    window = Window(
        0,
        seconds,
        {} if joules is None else {key: joules},
        {key: "counter_reset"} if joules is None else {},
        {"GPU-1": integral_j if integral_j is not None else joules or 0},
        {"GPU-1": 70.0},
        {},
    )
    return Trial(window, Work(calls=rows / 10, rows=rows, tokens=20 * rows, slots=25 * rows))


def made(trials: list[Trial], device: str = "cuda:0", **changes: Any) -> dict[str, Any]:
    run = Run(trials, hot_before=changes.pop("before", None), hot_after=changes.pop("after", None))
    return block(run, Meter(), Protocol(), device=device, **changes)  # type: ignore[arg-type]


def test_figures_are_sums_over_the_accepted_windows() -> None:
    found = made([trial(300), trial(330), trial(None), trial(360), trial(310), trial(305)], share_correct=0.8)
    total = 300 + 330 + 360 + 310 + 305
    assert (found["total_j"], found["inferences"], found["window_s"]) == (total, 5000, 30)
    assert found["per_inference_j"] == pytest.approx(total / 5000)
    assert found["per_token_j"] == pytest.approx(total / 100_000)
    assert found["per_slot_j"] == pytest.approx(total / 125_000)
    assert found["per_correct_j"] == pytest.approx(total / 4000)
    assert found["mean_power_w"] == pytest.approx(total / 30)
    assert found["energy_delay_product_js"] == pytest.approx(total / 5000 * 30 / 5000)
    assert found["windows_dropped"] == 1
    assert [window["reason"] for window in found["windows"]] == [None, None, "counter_reset", None, None, None]
    assert found["windows"][2]["total_j"] is None
    low, high = found["ci95"]
    assert 0.3 < low < found["per_inference_j"] < high < 0.36


def test_a_missing_component_makes_the_status_partial() -> None:
    found = made([trial(300)] * 5)
    assert (found["status"], found["reason"]) == ("partial", "rapl_absent")
    assert "cpu_package" in found["detail"]


@pytest.mark.parametrize(("lacks", "status"), [(None, "measured"), ("GPU-2", "partial")])
def test_a_component_that_lacks_one_of_its_devices_makes_the_status_partial(lacks: str | None, status: str) -> None:
    one = trial(300)
    one.window.joules.update({(name, "package-0"): 30.0 for name in ("gpu_memory", "cpu_package", "cpu_dram")})
    found = block(Run([one] * 5), WholeMeter(lacks=lacks), Protocol(), device="cuda:0")  # type: ignore[arg-type]
    assert (found["status"], found["reason"]) == (status, "not_supported" if lacks else None)
    assert not lacks or "a part of gpu_board" in found["detail"]
    assert ("not all its devices could be measured: not_supported: GPU-2" in "\n".join(describe(found))) is bool(lacks)
    assert found["total_j"] == 5 * 360  # the memory is in the board
    assert found["peak_power_w"] is None  # of the board alone it would be less than the mean can be
    assert found["components"][BOARD]["peak_power_w"] == 70


def test_the_peak_is_that_of_what_is_in_the_total() -> None:
    assert made([trial(300)] * 5)["peak_power_w"] == 70
    assert made([trial(300)] * 5, device="cpu")["peak_power_w"] is None


def test_a_gpu_that_the_backend_does_not_use_is_shown_and_not_counted() -> None:
    found = made([trial(300)] * 5, device="cpu")
    assert (found["status"], found["reason"], found["total_j"]) == ("unavailable", "rapl_absent", None)
    assert found["components"]["gpu_board"]["joules"] == 1500
    assert found["components"]["gpu_board"]["counted"] is False


def test_when_most_windows_are_dropped_there_is_no_figure() -> None:
    found = made([trial(None), trial(None), trial(300)])
    assert (found["status"], found["reason"], found["total_j"]) == ("unavailable", "counter_reset", None)


def test_few_windows_have_a_range_and_no_interval() -> None:
    found = made([trial(300), trial(330)])
    assert found["ci95"] is None
    assert found["range"] == [0.3, 0.33]


def test_counter_and_power_that_disagree_are_flagged() -> None:
    assert made([trial(300, integral_j=299)] * 5)["flags"] == []
    found = made([trial(187, integral_j=327)] * 5)
    assert found["counter_to_integral"] == pytest.approx(187 / 327)
    assert "0.57 times" in found["flags"][0]


def test_net_energy_needs_a_constant_baseline() -> None:
    def idle(watts: float) -> Idle:
        return Idle({BOARD: watts}, True)

    trials = [trial(300)] * 5
    net = made(trials, before=idle(30.5), after=idle(30))["net"]
    assert net["per_inference_j"] == pytest.approx((1500 - 30 * 30) / 5000)
    assert made(trials)["net"]["reason"] == "no_baseline"
    assert made(trials, before=idle(20), after=idle(30))["net"]["reason"] == "baseline_drifted"
    assert made(trials, before=idle(60), after=idle(60))["net"]["reason"] == "not_above_idle"


def test_carbon_follows_the_figures_of_the_user() -> None:
    found = made([trial(3.6e6)] * 5, carbon=Carbon(400, pue=1.5))["carbon"]
    assert found["total_g"] == pytest.approx(5 * 400 * 1.5)
    assert made([trial(300)] * 5)["carbon"] is None


def test_the_text_has_every_figure_and_the_missing_components() -> None:
    lines = "\n".join(describe(made([trial(300)] * 5, share_correct=0.8)))
    for piece in (
        "300 mJ per row [300 mJ, 300 mJ] at full load (measured components only)",
        "15 mJ per real token",
        "12 mJ per position (padding included)",
        "375 mJ per correct row",
        "1,500 J in 30.0 s, mean 50.0 W",
        "ticks of 100 ms",
        "1.000 times the integrated power",
        "cpu_package: n/a",
        "rapl_absent",
        "95 % over 5 windows",
        "off by about 5%",
        "net of idle: n/a",
    ):
        assert piece in lines
    assert describe(unavailable("not_requested", device="cpu")) == []  # nobody asked


def test_the_error_of_a_sensor_is_not_shown_if_its_board_is_not_in_the_total() -> None:
    one = trial(300)
    one.window.joules.update({(name, "package-0"): 30.0 for name in ("gpu_memory", "cpu_package", "cpu_dram")})
    lines = describe(block(Run([one]), WholeMeter(), Protocol(), device="cpu"))  # type: ignore[arg-type]
    assert "  1 window, too few for an interval" in lines


def test_every_reason_code_has_a_text(root: Path) -> None:
    text = "".join(file.read_text() for file in (root / "toolchain/meters").glob("*.py"))
    known = "gpu|rapl|counter|window|driver|no|mig|reads|not|ambiguous|nvml|module"
    codes = set(re.findall(rf'"((?:{known})_[a-z_]+)"', text))
    methods = {"nvml_counter", "nvml_power_integral", "nvml_samples"}
    assert codes - methods - {"gpu_board", "gpu_memory"} <= REASONS.keys()
