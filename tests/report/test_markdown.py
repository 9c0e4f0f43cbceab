from typing import Any

from toolchain.report.columns import TEXT_COLUMNS
from toolchain.report.markdown import markdown


def test_it_is_one_table_of_equal_rows(result: dict[str, Any]) -> None:
    lines = [line for line in markdown([result, result]).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {len(TEXT_COLUMNS) + 1}


def test_it_says_why_energy_is_missing_and_where_it_was_measured(result: dict[str, Any]) -> None:
    page = markdown([result])
    assert "- ort int8.cpu, energy: not measured: it was not requested (--energy)" in page
    assert "- python: 3.12\n- toolchain: " in page
    assert "gpu" not in page
