"""Files of a power record, read back by pandas, json and an XML parser."""

import io
import json
import xml.etree.ElementTree as ET

import pandas as pd
import pytest

from toolchain.errors import UsageError
from toolchain.report.power_file import samples_csv, writer

ABSENT = {"joules": None, "reason": "rapl_absent"}
SAMPLES = {"time_s": [0.05, 0.1], "gpu_board_w": [30.0, 50.0], "gpu_board_j": [1.5, 4.0]}
RECORD = {
    "command": ["python", "-c", "print('$x$ < $y$')"],
    "seconds": 0.1,
    "total_j": 4.0,
    "mean_power_w": 40.0,
    "peak_power_w": 50.0,
    "samples": SAMPLES,
    "components": {"gpu_board": {"joules": 4.0}, "cpu_package": ABSENT},
}
NOTHING = RECORD | {"total_j": None, "samples": None, "components": {"cpu_package": ABSENT}, "command": None}


def test_csv_has_a_row_for_each_sample():
    assert pd.read_csv(io.StringIO(samples_csv(RECORD))).to_dict("list") == SAMPLES
    assert list(pd.read_csv(io.StringIO(samples_csv(NOTHING))).columns) == ["time_s"]


def test_the_suffix_selects_the_format_of_a_power_record(tmp_path):
    for suffix in ("json", "csv", "svg"):
        writer(tmp_path / "new" / f"power.{suffix}")(RECORD)
    assert json.loads((tmp_path / "new/power.json").read_text()) == RECORD
    assert (tmp_path / "new/power.csv").read_text() == samples_csv(RECORD)
    ET.parse(tmp_path / "new/power.svg")


def test_an_unknown_suffix_is_an_error_before_the_measurement(tmp_path):
    with pytest.raises(UsageError, match=r"power\.txt: .* Choose \.json, \.csv, \.svg\.$"):
        writer(tmp_path / "power.txt")
