"""SVG files of records of `tune` and `power`; test_plots.py has the elements of the page."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from toolchain.report.record_plots import power_file, tune_file


def shown(svg: str) -> str:
    """Return the text in an SVG file; no colour may be one that only stands for a colour of the page."""
    assert not re.search(r"#0[123]0[0-9a-f]{3}|var\(", svg)
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_the_file_of_power_has_the_command_and_the_missing_components(power: dict[str, Any]) -> None:
    text = shown(power_file(power | {"command": ["echo", "$x$ < $y$"]}))
    for part in (
        "$x$ < $y$",
        "12 J in 0.3 s, mean 40 W, peak 41.5 W",
        "not measured: cpu_package (rapl_absent)",
        "gpu board",
    ):
        assert part in text


@pytest.mark.parametrize("part", ["this machine", "nothing could be measured in 0.3 s"])
def test_the_file_of_power_without_a_measurement_says_so(power: dict[str, Any], part: str) -> None:
    assert part in shown(power_file(power | {"total_j": None, "samples": None, "command": None}))


def test_the_file_of_tune_has_every_measured_gemm_and_the_sets(tuned: dict[str, Any]) -> None:
    sets = [{"macs": share, "expected_drop_points": 1 - share} for share in (0.0, 0.5)]
    text = shown(tune_file(tuned | {"sets": sets, "max_drop_points": 0.5}))
    for part in ("bert.layer.0.q", "bert.layer.1.q", "orange: excluded from INT8", "sets tried", "allowed"):
        assert part in text
    assert "bert.layer.2.q" not in text
