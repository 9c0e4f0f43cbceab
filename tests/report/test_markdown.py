from typing import Any

from toolchain.energy.record import unavailable
from toolchain.report.columns import TEXT_COLUMNS
from toolchain.report.markdown import markdown


def test_the_page_has_one_table_of_equal_rows(result: dict[str, Any]) -> None:
    lines = [line for line in markdown([result, result]).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {len(TEXT_COLUMNS) + 1}


def test_the_page_has_the_reason_for_missing_energy_and_the_machine(result: dict[str, Any]) -> None:
    page = markdown([result])
    assert "energy" not in page  # nobody asked for it
    missing = unavailable("no_nvml_library", device="cuda:0")
    assert "- ort int8.cpu, energy: not measured: this machine lacks" in markdown([result | {"energy": missing}])
    assert "- python: 3.12\n- toolchain: " in page
    assert "gpu" not in page
