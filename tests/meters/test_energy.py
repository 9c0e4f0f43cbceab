"""The meter with the real nvidia-ml-py on a scripted library and a simulated clock: exact joules, or a reason."""

import time
from pathlib import Path

import pytest

from toolchain.meters.energy import Cancelled, open_meter

T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\n"
SECOND = "device 1 6 GPU-22222222-bbbb Tesla T4\n"
CONSTANT = "power 0 0 43210\n"
STEPS = "power 0 0 12000\npower 0 4321 68000\npower 0 9876 33000\npower 0 12345 70000\n"
FAST_SQUARE = "square 0 0 3 10000 70000\n"
SQUARE = "square 0 0 100 10000 70000\n"
SLOW_SQUARE = "square 0 0 700 10000 70000\n"


def meter(nvml, *, powercap=Path("/nonexistent"), **choices):
    return open_meter(**{"clock": nvml.now, "sleep": nvml.advance, "powercap": powercap} | choices)


@pytest.mark.parametrize("update_ms", [20, 100])
@pytest.mark.parametrize("profile", [CONSTANT, STEPS, FAST_SQUARE, SQUARE, SLOW_SQUARE])
def test_energy_is_within_0_1_percent_of_the_truth(nvml, profile, update_ms):
    nvml.load(f"{T4}{profile}update_ms 0 {update_ms}\n")
    with meter(nvml) as found:
        for seconds in (5, 6.283, 10):
            window = found.window(seconds)
            assert window.seconds >= seconds
            truth = nvml.true_joules(0, window.opened_s, window.closed_s)
            assert abs(window.component_j("gpu_board") / truth - 1) <= 0.001, (window.joules, truth)
        assert abs(found.tick_s - update_ms / 1e3) < 0.002


@pytest.mark.parametrize("profile", [CONSTANT, STEPS])
def test_without_a_counter_power_is_integrated_and_labelled(nvml, profile):
    nvml.load(f"{T4}{profile}no_counter 0\nupdate_ms 0 20\n")
    with meter(nvml) as found:
        window = found.window(12)
        truth = nvml.true_joules(0, window.opened_s, window.closed_s)
        assert abs(window.component_j("gpu_board") / truth - 1) <= 0.003
        assert [one.source.method for one in found.readings.values()] == ["nvml_power_integral"]


def test_counter_and_power_check_each_other(nvml):
    nvml.load(f"{T4}{CONSTANT}")
    with meter(nvml) as found:
        window = found.window(6)
        ((uuid, integral),) = window.integral_j.items()
        assert abs(integral / window.component_j("gpu_board") - 1) < 0.001
        assert window.peak_w[uuid] == 43.21


def test_several_gpus_add_up_and_one_can_be_chosen(nvml):
    nvml.load(f"{T4}{CONSTANT}{SECOND}power 1 0 20000\nupdate_ms 1 70\n")
    with meter(nvml) as found:
        window = found.window(6)
        truth = sum(nvml.true_joules(gpu, window.opened_s, window.closed_s) for gpu in (0, 1))
        assert abs(window.component_j("gpu_board") / truth - 1) <= 0.001
    with meter(nvml, device="cuda:1") as found:
        assert {key[1] for key in found.readings} == {"GPU-22222222-bbbb"}
    with meter(nvml, device="cuda:2") as found:
        assert found.missing["gpu_board"][0] == "no_device"


@pytest.mark.parametrize("update_ms", [63, 97])
def test_a_counter_out_of_step_with_the_slowest_errs_by_less_than_a_tick(nvml, update_ms):
    """Its ticks around each edge are read every millisecond, not at the next regular poll."""
    nvml.load(f"{T4}{CONSTANT}{SECOND}power 1 0 43210\nupdate_ms 1 {update_ms}\n")
    with meter(nvml) as found:
        for number in range(6):
            nvml.advance(0.0137 * number)
            window = found.window(5)
            for index, joules in enumerate(window.joules.values()):
                truth = nvml.true_joules(index, window.opened_s, window.closed_s)
                assert abs(joules / truth - 1) < 0.0005, (index, window)


def test_a_stuck_counter_is_replaced_by_integrated_power(nvml):
    nvml.load(f"{T4}{CONSTANT}stuck 0 0\n")
    with meter(nvml) as found:
        (one,) = found.readings.values()
        assert one.source.method == "nvml_power_integral"
        window = found.window(6)
        assert abs(window.component_j("gpu_board") / (43.21 * window.seconds) - 1) <= 0.001


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("reset 0 5000 0\n", "counter_reset"),
        ("error 0 nvmlDeviceGetTotalEnergyConsumption 999 5000 5200\n", "nvml_unknown"),
        ("error 0 nvmlDeviceGetTotalEnergyConsumption 4 5000 5200\n", "no_permission"),
    ],
)
def test_a_fault_drops_only_the_window_that_contains_it(nvml, fault, reason):
    nvml.load(f"{T4}{CONSTANT}base_mj 0 9000000\n{fault}")
    with meter(nvml) as found:
        hit, after = found.window(6), found.window(6)
        assert (hit.component_j("gpu_board"), hit.reason("gpu_board")) == (None, reason)
        truth = nvml.true_joules(0, after.opened_s, after.closed_s)
        assert abs(after.component_j("gpu_board") / truth - 1) <= 0.001


@pytest.mark.parametrize(
    ("fault", "reason"), [("error 0 * 15 5000 -1\n", "gpu_lost"), ("stuck 0 5000\n", "counter_stuck")]
)
def test_a_lost_gpu_or_stuck_counter_gives_no_further_number(nvml, fault, reason):
    nvml.load(f"{T4}{CONSTANT}{fault}")
    with meter(nvml) as found:
        for window in (found.window(6), found.window(6)):
            assert (window.component_j("gpu_board"), window.reason("gpu_board")) == (None, reason)


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        (f"{T4}{CONSTANT}mig 0 1\n", "mig_shared"),
        (f"{T4}error 0 nvmlDeviceGetMigMode 15 0 -1\n", "gpu_lost"),
        (f"{T4}power 0 0 0\nno_counter 0\n", "reads_zero"),
        (
            f"{T4}error 0 nvmlDeviceGetTotalEnergyConsumption 3 0 -1\nerror 0 nvmlDeviceGetFieldValues 3 0 -1\n"
            "error 0 nvmlDeviceGetPowerUsage 3 0 -1\n",
            "not_supported",
        ),
        ("init_error 9\n", "driver_not_loaded"),
        ("", "no_device"),
    ],
)
def test_components_that_cannot_be_measured_have_their_reason(nvml, scenario, reason):
    nvml.load(scenario)
    with meter(nvml) as found:
        assert found.readings == {}
        assert found.missing["gpu_board"][0] == reason
        assert found.missing["cpu_package"][0] == "rapl_absent"


def test_packages_and_memory_are_measured_across_a_wrap(nvml, tmp_path):
    zones = {"intel-rapl:0": ("package-0", 262_143_000_000), "intel-rapl:0:0": ("dram", 5)}
    for folder, (name, value) in zones.items():
        (tmp_path / folder).mkdir()
        for file, text in (("name", name), ("energy_uj", value), ("max_energy_range_uj", 262_143_328_850)):
            (tmp_path / folder / file).write_text(str(text))
    nvml.load("")
    powers = {"intel-rapl:0": 80.0, "intel-rapl:0:0": 5.0}
    start = {name: int((tmp_path / name / "energy_uj").read_text()) for name in powers}

    def sleep(seconds):
        nvml.advance(seconds)
        for name, watts in powers.items():
            (tmp_path / name / "energy_uj").write_text(
                str((start[name] + round(watts * nvml.now() * 1e6)) % 262_143_328_850)
            )

    with meter(nvml, powercap=tmp_path, sleep=sleep) as found:
        window = found.window(6)
        assert abs(window.component_j("cpu_package") / (80 * window.seconds) - 1) <= 0.001
        assert abs(window.component_j("cpu_dram") / (5 * window.seconds) - 1) <= 0.001
        assert "gpu_board" in found.missing
        assert "cpu_package" not in found.missing


def test_a_zone_that_never_moves_is_missing(nvml, tmp_path):
    (tmp_path / "intel-rapl:0").mkdir()
    for file, text in (("name", "package-0"), ("energy_uj", 0), ("max_energy_range_uj", 262_143_328_850)):
        (tmp_path / "intel-rapl:0" / file).write_text(str(text))
    nvml.load("")
    with meter(nvml, powercap=tmp_path) as found:
        assert found.missing["cpu_package"][0] == "counter_stuck"
        assert found.readings == {}


@pytest.mark.slow
def test_with_the_real_clock_a_window_of_six_seconds_is_within_2_percent(nvml):
    nvml.load(f"clock real\n{T4}{STEPS}")
    begun = time.monotonic() - nvml.now()
    with open_meter() as found:
        spent = time.thread_time()
        window = found.window(6)
        spent = time.thread_time() - spent
        truth = nvml.true_joules(0, window.opened_s - begun, window.closed_s - begun)
        assert abs(window.component_j("gpu_board") / truth - 1) <= 0.02


def test_another_thread_can_cancel_it(nvml):
    nvml.load(f"{T4}{CONSTANT}")
    with meter(nvml) as found:
        found.cancel()
        with pytest.raises(Cancelled):
            found.window(5)
