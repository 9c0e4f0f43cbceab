import pytest

from toolchain.cli.show.power import bars, live, recorded

BOARD = {
    "joules": 100.0,
    "mean_power_w": 50.0,
    "peak_power_w": 70.0,
    "method": "nvml_counter",
    "counted": True,
    "part_of": None,
    "detail": None,
}
MEMORY = BOARD | {"joules": 25.0, "counted": False, "part_of": "gpu_board"}
ABSENT = {"joules": None, "method": "unavailable", "reason": "rapl_absent", "counted": True}
RECORD = {
    "command": ["true"],
    "seconds": 2.0,
    "total_j": 100.0,
    "mean_power_w": 50.0,
    "peak_power_w": 70.0,
    "relative_edge_error": 0.05,
    "components": {"gpu_board": BOARD, "gpu_memory": MEMORY, "cpu_package": ABSENT},
    "samples": {"time_s": [1.0, 2.0], "gpu_board_w": [30.0, 70.0], "gpu_memory_w": [1.0, 1.0]},
    "flags": ["warm"],
}


def test_a_record_is_printed_to_stderr_with_the_missing_components(capsys: pytest.CaptureFixture[str]) -> None:
    recorded(RECORD)
    found = capsys.readouterr()
    assert found.out == ""
    for part in (
        "nvml_counter, part of gpu_board",
        "this machine lacks a RAPL counter",
        "total 100 J in 2 s",
        "5.00%",
        "without cpu_package",
        f"{bars([30, 70])} 30 to 70 W",
        "note: warm",
    ):
        assert part in found.err


def test_nothing_measured_shows_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    recorded(RECORD | {"total_j": None, "samples": None, "components": {"cpu_package": ABSENT}, "flags": []})
    shown = capsys.readouterr().err
    assert "nothing could be measured" in shown
    assert " 0 " not in shown


def test_a_device_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    detail = "not all its devices could be measured: mig_shared"
    recorded(RECORD | {"components": {"gpu_board": BOARD | {"detail": detail}}})
    assert f"nvml_counter, {detail}" in capsys.readouterr().err


@pytest.mark.parametrize(("values", "expected"), [([0, 4, 8], "▁▅█"), ([0, 0], "▁▁"), ([5, 5], "██"), ([], "")])
def test_bars_are_scaled_from_0_to_the_highest_value(values: list[float], expected: str) -> None:
    assert bars(values) == expected


def test_watching_writes_a_line_a_second_if_stderr_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    draw = live()
    draw(1.0, {"gpu_board": 30.0, "gpu_memory": 9.0, "cpu_package": None})
    draw(2.0, {"gpu_board": 60.0, "gpu_memory": 9.0, "cpu_package": None})
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].split("  ")[-3:] == ["gpu_board 60.0 W", "gpu_memory 9.0 W", "▅█"]
