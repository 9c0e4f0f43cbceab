import json
from typing import Any

import pytest

from toolchain.report.optimum import benchmark, optimum_benchmark

# The fields of optimum_benchmark 0.6.0: trackers/{memory,latency,energy}.py, benchmark/{report,config}.py.
FIELDS = {
    "memory": {"unit", "max_ram", "max_global_vram", "max_process_vram", "max_reserved", "max_allocated"},
    "latency": {"unit", "values", "count", "total", "mean", "p50", "p90", "p95", "p99", "stdev", "stdev_"},
    "throughput": {"unit", "value"},
    "energy": {"unit", "cpu", "ram", "gpu", "total"},
    "efficiency": {"unit", "value"},
}


def test_fields_are_those_of_optimum_benchmark(measured: dict[str, Any]) -> None:
    (found,) = json.loads(optimum_benchmark([measured]))
    assert found["report"].keys() == {"load_model", "first_forward", "forward"}
    assert found["config"].keys() == {"name", "backend", "scenario", "launcher", "environment"}
    assert {name: set(fields) for name, fields in found["report"]["forward"].items()} == FIELDS


def test_units_are_those_of_optimum_benchmark(measured: dict[str, Any]) -> None:
    forward = benchmark(measured)["report"]["forward"]
    assert forward["latency"]["p99"] == pytest.approx(0.003875)
    assert forward["energy"]["total"] == pytest.approx(1500 / 5000 / 3.6e6)
    assert forward["efficiency"]["value"] == pytest.approx(5000 / 1500 * 3.6e6)


def test_unmeasured_values_are_null(measured: dict[str, Any], result: dict[str, Any]) -> None:
    report = benchmark(measured)["report"]
    assert (report["forward"]["energy"]["cpu"], report["forward"]["energy"]["ram"]) == (None, None)
    assert set(report["load_model"].values()) == {None}
    assert benchmark(result)["report"]["forward"]["energy"] is None
