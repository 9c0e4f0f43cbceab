import csv
import io
from typing import Any

from toolchain.report.csv import comma_separated


def read(results: list[dict[str, Any]]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(comma_separated(results))))


def test_numbers_are_not_rounded(result: dict[str, Any]) -> None:
    (row,) = read([result])
    assert row["metrics.accuracy"] == "0.8812"
    assert float(row["throughput_per_s"]) == result["throughput_per_s"]
    assert row["peak_memory_mb.device"] == ""


def test_intervals_are_in_it_and_histograms_are_not(result: dict[str, Any]) -> None:
    (row,) = read([result])
    assert (row["metrics_ci95.accuracy.0"], row["metrics_ci95.accuracy.1"]) == ("0.86", "0.9")
    assert not [name for name in row if "lengths" in name]


def test_texts_of_a_foreign_result_are_no_formulas_and_numbers_stay(result: dict[str, Any]) -> None:
    (row,) = read([result | {"seed": "=1+1", "command": "@SUM(1)\x1b", "=k": "+1", "threads": -1}])
    assert (row["seed"], row["command"]) == ("'=1+1", "'@SUM(1)\\u001b")
    assert (row["'=k"], row["threads"]) == ("+1", "-1")


def test_results_with_other_keys_leave_cells_empty(result: dict[str, Any], reference: dict[str, Any]) -> None:
    other = reference | {"metrics": {"pearson": 0.9}}
    first, second = read([result, other])
    assert (first["metrics.pearson"], second["metrics.pearson"], second["metrics.accuracy"]) == ("", "0.9", "")
