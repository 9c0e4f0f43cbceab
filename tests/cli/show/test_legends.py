"""Below each table stands what its headings mean, and nothing is said of what nobody asked for."""

from typing import Any

import pytest

from toolchain.cli.show.explain import explained
from toolchain.cli.show.power import recorded

RECORD: dict[str, Any] = {
    "artefact": "model.int8.cpu.onnx",
    "precision": "int8",
    "rows": "16 built-in sentences",
    "reference": "model.onnx",
    "share_of_macs": {"integers": 0.9, "tensorrt": 0.9, "on_this_cpu": 0.9},
    "conversions": {"graph": {}, "on_this_cpu": {}},
    "smoothing_muls": 0,
    "speed": None,
    "products": [],
    "clipped": [],
    "float16": [],
    "advice": [],
}
GEMM = {"name": "layer.0.lin1", "snr_db": 21.0, "macs": 0.1, "reason": None, "integers": True, "on_this_cpu": True}
TABLES = [
    ({"products": [GEMM | {"reason": "no range"}]}, "GEMMs: matrix products"),
    ({"products": [GEMM]}, "signal to noise: of the GEMM's output"),
    ({"clipped": [{"tensor": "a", "share": 0.1, "reach": 2.0}]}, "range: the calibration range"),
    ({"float16": [{"tensor": "a", "amax": 9.0, "share": 0.1}]}, "65,504: the largest number of float16"),
]


@pytest.mark.parametrize(("change", "legend"), TABLES)
def test_each_table_of_explain_has_a_legend_below_it(change: dict[str, Any], legend: str, capsys: Any) -> None:
    explained({**RECORD, **change})  # type: ignore[typeddict-item]
    table, _, below = capsys.readouterr().out.partition(legend)
    assert "──" in table
    assert below


def test_the_table_of_power_has_a_legend(capsys: Any) -> None:
    absent = {"joules": None, "reason": "rapl_absent", "counted": True}
    nothing = {"total_j": None, "seconds": 1.0, "samples": None, "flags": [], "command": ["true"]}
    recorded({**nothing, "components": {"cpu_package": absent}})  # type: ignore[typeddict-item]
    assert "J: energy; W: power; how: " in capsys.readouterr().err
