"""A sweep on the page: its cells, its fronts, and the cells without a result."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.report.test_html import Page
from toolchain.errors import InputError
from toolchain.report.html import html
from toolchain.report.inputs import find_material


@pytest.fixture
def folder(result: dict[str, Any], tmp_path: Path) -> Path:
    """The folder of a sweep with three cells that are done and one that failed."""
    cells: list[dict[str, Any]] = []
    for name, accuracy, p50 in (("best", 0.95, 5.0), ("fast", 0.9, 1.0), ("slow", 0.8, 9.0), ("none", 0.0, 0.0)):
        done = name != "none"
        run = {"attempts": 1, "seconds": 1.0, "build_s": None, "exit_code": 0, "reason": None, "size_mb": 12.5}
        cells.append(
            {
                "key": name.ljust(64, "0"),
                "name": name,
                "options": {"precision": name, "backend": "ort"},
                "bundle": "bundles/int8",
                "state": "done" if done else "failed",
                "reason": None if done else "killed by SIGSEGV <b>",
                "result": f"cells/{name}/result.json" if done else None,
                "run": run,
            }
        )
        if done:
            one = copy.deepcopy(result) | {"metrics": {"accuracy": accuracy}}
            one["metrics_ci95"] = {"accuracy": [accuracy - 0.01, accuracy + 0.01]}
            one["latency_ms"]["p50"] = p50
            file = tmp_path / cells[-1]["result"]
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(one))
    front = {"task": "sst2", "data_sha256": result["data_sha256"], "metric": "accuracy", "unmeasured": []}
    record = {
        "schema": 1,
        "name": "study",
        "folder": str(tmp_path),
        "objectives": ["latency", "size"],
        "cells": cells,
        "merged": 0,
        "excluded": 0,
        "fronts": [
            front | {"cost": "latency", "members": ["fast", "best"], "unresolved": ["best"]},
            front | {"cost": "size", "members": ["best"], "unresolved": []},
        ],
        "glue": [],
        "forecast": {"cells": 1, "builds": 0, "seconds": 1.0},
    }
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    return tmp_path


def test_the_page_shows_each_cell_once_and_the_fronts(folder: Path) -> None:
    material = find_material([folder])
    assert len(material.results) == 3
    assert material.apart == []
    page = Page(html(material))
    rows = [
        one for one in page.all("tr", role="row") if any(x.get("aria-label") == "Cells of study" for x in one["within"])
    ]
    assert len(rows) == 4  # with the headings
    assert [one["text"] for one in page.all("td", **{"data-label": "on the Pareto front for"})] == [""] * 3
    shown = [one["text"] for one in page.all("span")]
    assert shown.count("latency, size") == 1
    assert "killed by SIGSEGV <b>" in shown
    captions = " ".join(one["text"] for one in page.all("figcaption"))
    assert "sst2: accuracy against median latency, ms. In colours: the 2 cells" in captions
    assert captions.count("Not resolved: another cell is better on both axes") == 1
    names = {one["text"] for one in page.all("text")}
    assert {"fast", "best (not resolved)"} <= names
    assert "slow" not in names


def test_the_numbers_of_the_table_name_their_files(folder: Path) -> None:
    page = Page(html(find_material([folder / "sweep.json"])))
    sizes = [one for one in page.all("data") if one["data-key"] == "size_mb"]
    assert {one["data-source"] for one in sizes} == {str(folder / "sweep.json")}
    times = [one for one in page.all("data") if one["data-key"] == "latency_ms.p50"]
    assert {one["data-source"] for one in times} == {
        str(folder / f"cells/{name}/result.json") for name in ("best", "fast", "slow")
    }


def test_a_sweep_stands_beside_results_and_a_broken_record_is_refused(folder: Path, result: dict[str, Any]) -> None:
    (folder / "alone.json").write_text(json.dumps(result))
    material = find_material([folder, folder / "alone.json"])
    assert [one["file"] for one in material.apart] == [str(folder / "alone.json")]
    (folder / "sweep.json").write_text('{"cells": 3, "fronts": []}')
    with pytest.raises(InputError, match=r"sweep.json: the record is broken"):
        find_material([folder])


def test_a_cost_that_no_cell_has_gets_no_plot(folder: Path) -> None:
    """As the size, if PyTorch alone ran."""
    file = folder / "sweep.json"
    record = json.loads(file.read_text())
    for cell in record["cells"]:
        cell["run"]["size_mb"] = None
    record["fronts"][1] |= {"members": [], "unmeasured": ["best", "fast", "slow"]}
    file.write_text(json.dumps(record))
    titles = [one["text"] for one in Page(html(find_material([folder]))).all("title")]
    assert [one for one in titles if one.startswith("sst2: ")] == ["sst2: accuracy against median latency, ms"]


def test_a_sweep_that_was_killed_is_named_as_such(tmp_path):
    (tmp_path / "cells").mkdir()
    with pytest.raises(InputError, match="the sweep in this folder is unfinished"):
        find_material([tmp_path])
