import copy
import csv
import io
import json
from typing import Any

import pytest

from toolchain import report
from toolchain.energy.block import unavailable

RESULT: dict[str, Any] = {
    "schema": 1,
    "task": "sst2",
    "split": "validation",
    "n": 872,
    "model": "org/some-model",
    "backend": "ort",
    "device": "cpu",
    "precision": "int8",
    "variant": "int8.cpu",
    "data_sha256": "0",
    "primary": "accuracy",
    "metrics": {"accuracy": 0.8812, "f1": 0.5},
    "metrics_ci95": {"accuracy": [0.86, 0.9], "f1": [0.4, 0.6]},
    "agreement": {"reference": "torch-fp32", "label_agreement": 0.99136, "max_abs_logit_difference": 0.3125},
    "latency_ms": {"mean": 1.5, "p50": 1.25, "p90": 2.0, "p95": 2.0, "p99": 3.875, "batch_size": 1},
    "throughput_per_s": 1234.5,
    "peak_memory_mb": {"host": 256.0, "device": None},
    "energy": unavailable("not_requested", device="cpu"),
    "environment": {"python": "3.12", "gpu": None},
    "created": "2026-01-01T00:00:00+00:00",
}


@pytest.fixture
def regression() -> dict[str, Any]:
    """A result of another kind: no labels to agree on, memory that could not be read."""
    result = copy.deepcopy(RESULT)
    result |= {"primary": "pearson", "metrics": {"pearson": 0.9}, "metrics_ci95": {"pearson": [0.8, 0.95]}}
    result["agreement"]["label_agreement"] = None
    result["peak_memory_mb"]["host"] = None
    return result


def test_title_says_what_was_evaluated() -> None:
    assert report.title(RESULT) == "some-model on sst2 validation, 872 rows"


def test_cells_are_rounded_in_the_order_of_the_headings() -> None:
    assert dict(zip(report.headings([RESULT]), report.rows([RESULT])[0], strict=True)) == {
        "runtime": "ort cpu",
        "variant": "int8.cpu",
        "accuracy [95 % CI]": "0.8812 [0.860, 0.900]",
        "agree": "0.9914",
        "diff": "0.3125",
        "p50 ms": "1.25",
        "p99 ms": "3.88",
        "rows/s": "1,234",
        "MB": "256",
        "mJ/row": "-",
    }


def test_what_was_not_measured_is_a_dash_and_never_0(regression: dict[str, Any]) -> None:
    cells = dict(zip(report.COLUMNS, report.rows([regression])[0], strict=True))
    assert {name for name, cell in cells.items() if cell == "-"} == {"agree", "MB", "mJ/row"}


def test_markdown_is_one_table_of_equal_rows() -> None:
    lines = [line for line in report.markdown([RESULT, RESULT]).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {len(report.COLUMNS) + 1}


def test_markdown_says_why_energy_is_missing_and_where_it_was_measured() -> None:
    page = report.markdown([RESULT])
    assert "- ort int8.cpu, energy: not measured: it was not asked for (--energy)" in page
    assert "- python: 3.12\n- toolchain: " in page
    assert "gpu" not in page


def test_csv_has_the_numbers_as_they_are() -> None:
    (row,) = csv.DictReader(io.StringIO(report.comma_separated([RESULT])))
    assert row["metrics.accuracy"] == "0.8812"
    assert float(row["throughput_per_s"]) == RESULT["throughput_per_s"]
    assert row["peak_memory_mb.device"] == ""


def test_csv_has_the_intervals() -> None:
    (row,) = csv.DictReader(io.StringIO(report.comma_separated([RESULT])))
    assert (row["metrics_ci95.accuracy.0"], row["metrics_ci95.accuracy.1"]) == ("0.86", "0.9")


def test_csv_of_results_with_other_keys_leaves_cells_empty(regression: dict[str, Any]) -> None:
    one, other = csv.DictReader(io.StringIO(report.comma_separated([RESULT, regression])))
    assert (one["metrics.pearson"], other["metrics.pearson"], other["metrics.accuracy"]) == ("", "0.9", "")


def test_json_is_the_results() -> None:
    assert json.loads(report.as_json([RESULT])) == [RESULT]


@pytest.mark.parametrize("name", report.FORMATS)
def test_every_format_ends_in_one_line_end(name: str) -> None:
    text = report.FORMATS[name]([RESULT])
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
