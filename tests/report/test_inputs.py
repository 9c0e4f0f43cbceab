import json
from pathlib import Path
from typing import Any

import pytest

from toolchain.errors import InputError
from toolchain.report.inputs import find_material


def write(path: Path, record: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({key: value for key, value in record.items() if key != "file"}))
    return path


def test_a_folder_gives_its_results_and_the_record_of_tune(
    result: dict[str, Any], tuned: dict[str, Any], tmp_path: Path
) -> None:
    file, beside = write(tmp_path / "ort.json", result), write(tmp_path / "tune/tune.json", tuned)
    found = find_material([tmp_path])
    assert [one["file"] for one in (*found.results, *found.tuned)] == [str(file), str(beside)]
    assert found.powers == []


def test_files_are_recognised_by_their_contents(
    result: dict[str, Any], tuned: dict[str, Any], power: dict[str, Any], tmp_path: Path
) -> None:
    records = {"a.json": power, "b.json": tuned, "c.json": result}
    found = find_material([write(tmp_path / name, record) for name, record in records.items()])
    assert [len(kind) for kind in (found.results, found.tuned, found.powers)] == [1, 1, 1]


def test_another_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a result of schema 1"):
        find_material([write(tmp_path / "other.json", {"a": 1})])
