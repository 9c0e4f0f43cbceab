"""Energy of a block of Python and of commands, through the real nvidia-ml-py on a scripted library."""

import sys
import threading
import time
from pathlib import Path

import pytest

from toolchain.energy import power
from toolchain.errors import InputError, MachineError, UsageError

T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 50000\n"
SECOND = "device 1 6 GPU-22222222-bbbb Tesla T4\npower 1 0 20000\nupdate_ms 1 70\n"
NO_SENSOR = "error 0 nvmlDeviceGetFieldValues 3 0 -1\nerror 0 nvmlDeviceGetPowerUsage 3 0 -1\n"


def measure(nvml, powercap=Path("/nonexistent"), **choices):
    """The meter's thread moves the scripted clock on, and the body waits for it."""
    return power.measure(**{"clock": nvml.now, "sleep": nvml.advance, "powercap": powercap} | choices)


def work(nvml, seconds):
    end = nvml.now() + seconds
    while nvml.now() < end:
        time.sleep(0)


@pytest.mark.parametrize(
    ("scenario", "watts", "method"),
    [
        (T4, 50, "nvml_counter"),
        (f"{T4}no_counter 0\n", 50, "nvml_power_integral"),
        (T4 + SECOND, 70, "nvml_counter"),
        (T4 + NO_SENSOR, 50, "nvml_counter"),
    ],
)
def test_figures_and_samples_are_those_of_the_power(nvml, scenario, watts, method):
    nvml.load(scenario)
    with measure(nvml) as reading:
        assert reading.total_j is reading.seconds is reading.samples is None
        work(nvml, 6.283)
    assert reading.seconds >= 6.283
    assert abs(reading.total_j / (watts * reading.seconds) - 1) < 0.002, (reading.total_j, reading.seconds)
    assert 0 < reading.relative_edge_error < 0.05
    assert reading.components["gpu_board"]["method"] == method
    assert abs(reading.peak_power_w - watts) < 0.12 * watts
    assert abs(reading.samples.power_w["gpu_board"] - watts).max() < 0.12 * watts
    assert abs(reading.samples.joules["gpu_board"][-1] - reading.total_j) < 1e-6
    assert reading.missing == {"gpu_memory": "not_supported", "cpu_package": "rapl_absent", "cpu_dram": "rapl_absent"}
    assert (reading.status, reading.flags) == ("partial", [])


def test_memory_is_shown_and_not_added(nvml):
    nvml.load(f"{T4}has_memory_scope 0\n")
    with measure(nvml) as reading:
        work(nvml, 6)
    assert abs(reading.joules["gpu_memory"] / reading.joules["gpu_board"] - 0.25) < 0.01
    assert reading.total_j == reading.joules["gpu_board"]


@pytest.mark.parametrize(("device", "watts"), [("cuda:1", 20), ("cpu", None)])
def test_the_device_says_what_is_in_the_total(nvml, device, watts):
    nvml.load(T4 + SECOND)
    with measure(nvml, device=device) as reading:
        work(nvml, 4)
    total = watts and watts * reading.seconds
    assert reading.total_j == (total and pytest.approx(total, rel=0.002)), reading.missing


def test_a_gpu_without_readings_makes_the_status_partial(nvml, tmp_path):
    for folder, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        (tmp_path / folder).mkdir()
        for file, text in (("name", name), ("energy_uj", 0), ("max_energy_range_uj", 262_143_328_850)):
            (tmp_path / folder / file).write_text(str(text))
    none = "no_counter 1\nerror 1 nvmlDeviceGetFieldValues 3 0 -1\nerror 1 nvmlDeviceGetPowerUsage 3 0 -1\n"
    nvml.load(T4 + SECOND + none)

    def sleep(seconds):
        nvml.advance(seconds)
        for file in tmp_path.glob("*/energy_uj"):
            file.write_text(str(round(8e7 * nvml.now())))

    with measure(nvml, tmp_path, sleep=sleep) as reading:
        work(nvml, 3)
    assert reading.status == "partial"
    assert "GPU-2" not in str(reading.components["gpu_board"]["devices"])
    assert {"cpu_package", "gpu_board"}.isdisjoint(reading.missing)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("reset 0 5000 0\nbase_mj 0 9000000\n", "counter_reset"),
        ("error 0 * 15 5000 -1\n", "gpu_lost"),
        ("error 0 nvmlDeviceGetTotalEnergyConsumption 999 5000 5200\n", "nvml_unknown"),
        ("stuck 0 5000\n", "counter_stuck"),
    ],
)
def test_a_fault_during_the_measurement_gives_a_reason_instead_of_a_number(nvml, fault, reason):
    nvml.load(T4 + fault)
    with measure(nvml) as reading:
        work(nvml, 8)
    made = reading.to_json()
    assert reading.missing["gpu_board"] == reason
    assert made["status"] == "unavailable"
    names = ("total_j", "mean_power_w", "peak_power_w", "edge_error_j", "relative_edge_error", "samples")
    assert [made[name] for name in names] == [None] * 6
    assert made["context"]["gpus"][0]["name"] == "Tesla T4"


def test_packages_are_measured_across_a_wrap_and_flagged_as_the_whole_machine(nvml, tmp_path):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for file, text in (("name", "package-0"), ("energy_uj", 262_100_000_000), ("max_energy_range_uj", 262_143_328_850)):
        (zone / file).write_text(str(text))
    nvml.load("")
    counter = zone / "energy_uj"

    def sleep(seconds):
        nvml.advance(seconds)
        counter.write_text(str((262_100_000_000 + round(80e6 * nvml.now())) % 262_143_328_850))

    with measure(nvml, tmp_path, sleep=sleep, device="cpu") as reading:
        work(nvml, 6)
    assert abs(reading.total_j / (80 * reading.seconds) - 1) < 0.001, (reading.total_j, reading.seconds)
    assert abs(reading.peak_power_w - 80) < 2
    assert reading.flags == ["processor and memory energy include all processes on this machine"]


def test_an_exception_of_the_body_is_raised_and_the_thread_ends(nvml):
    nvml.load(T4)
    with pytest.raises(LookupError), measure(nvml) as reading:  # noqa: PT012
        work(nvml, 3)
        raise LookupError("of the body")
    assert abs(reading.total_j / (50 * reading.seconds) - 1) < 0.002
    assert threading.enumerate() == [threading.main_thread()]


def test_watching_draws_every_second_until_its_time_is_up(nvml):
    nvml.load(T4)
    drawn = []
    found = power.watch(
        lambda seconds, power_w: drawn.append((round(seconds), round(power_w["gpu_board"]))),
        seconds=4.5,
        powercap=Path("/nonexistent"),
        clock=nvml.now,
        sleep=nvml.advance,
    )
    assert [seconds for seconds, _ in drawn] == [1, 2, 3, 4, 5] or [seconds for seconds, _ in drawn] == [1, 2, 3, 4, 4]
    assert {watts for _, watts in drawn[1:4]} <= set(range(47, 54)), drawn
    assert abs(found["total_j"] / (50 * found["seconds"]) - 1) < 0.002
    assert found["command"] is found["exit_code"] is None


def test_without_anything_to_measure_everything_is_null_with_reasons(tmp_path):
    with power.measure(powercap=tmp_path) as reading:
        pass
    made = reading.to_json()
    assert made["status"] == "unavailable"
    assert made["seconds"] > 0
    assert {made[name] for name in ("total_j", "mean_power_w", "peak_power_w", "relative_edge_error")} == {None}
    assert reading.missing["cpu_package"] == "rapl_absent"
    assert set(reading.joules.values()) == {None}


def test_required_energy_that_cannot_be_measured_is_an_error_before_the_command_runs(tmp_path):
    made = tmp_path / "made"
    with pytest.raises(
        MachineError, match=r"^--require-energy: this machine cannot measure any energy \(gpu_board: \w+, "
    ):
        power.run([sys.executable, "-c", f"open({str(made)!r}, 'w')"], require_energy=True, powercap=tmp_path)
    assert not made.exists()
    with pytest.raises(MachineError, match=r"^power: this machine cannot measure any energy"):
        power.watch(lambda seconds, power_w: None, powercap=tmp_path)


def test_judge_raises_for_a_lost_measurement_unless_the_command_failed(tmp_path):
    found = power.run([sys.executable, "-c", ""], powercap=tmp_path)
    with pytest.raises(MachineError, match=r"^--require-energy: this machine cannot measure any energy"):
        power.judge(found)
    power.judge(found | {"exit_code": 5})


@pytest.mark.parametrize(
    ("code", "expected"), [("pass", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 128 + 9)]
)
def test_the_exit_code_is_the_commands(tmp_path, code, expected):
    assert power.run([sys.executable, "-c", code], powercap=tmp_path)["exit_code"] == expected


def test_a_command_that_is_missing_or_cannot_start_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"^no-such-thing: this command does not exist\."):
        power.run(["no-such-thing"], powercap=tmp_path)
    script = tmp_path / "script"
    script.write_bytes(b"\x7fELF of nothing")
    script.chmod(0o755)
    with pytest.raises(InputError, match=r"script: the command cannot be started \(Exec format error\)"):
        power.run([str(script)], powercap=tmp_path)
    with pytest.raises(UsageError, match=r"^--device gpu0: this device is unknown\."):
        power.run(["true"], device="gpu0", powercap=tmp_path)
