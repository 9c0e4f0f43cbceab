import json
from pathlib import Path
from typing import Any

import pytest

from toolchain.cli import main, parser
from toolchain.cli.commands import COMMANDS
from toolchain.errors import UsageError
from toolchain.report.formats import HTML, TABLES, format_for, render
from toolchain.report.inputs import Material

NAMES = (*TABLES, HTML)


@pytest.mark.parametrize(("name", "found"), [("a.html", HTML), ("b.HTM", HTML), ("c.csv", "csv"), ("d.txt", "md")])
def test_the_suffix_names_the_format(name: str, found: str) -> None:
    assert format_for(Path(name)) == found
    assert format_for(None) == "md"


@pytest.mark.parametrize("name", NAMES)
def test_every_format_ends_with_one_line_break(name: str, result: dict[str, Any]) -> None:
    text = render(Material([result]), name)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_the_command_writes_what_the_suffix_names(result: dict[str, Any], tmp_path: Path) -> None:
    file, page = tmp_path / "ort.json", tmp_path / "report.html"
    file.write_text(json.dumps(result))
    assert main(["report", str(file), "-o", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("name", NAMES)
def test_the_command_line_offers_it(name: str) -> None:
    assert parser().parse_args(["report", "r.json", "--format", name]).format == name
    assert "report" in COMMANDS


def test_json_is_the_results(result: dict[str, Any]) -> None:
    assert json.loads(render(Material([result]), "json")) == [result]


def test_a_table_without_results_is_an_error(power: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--format csv: this format shows only results, and none was given"):
        render(Material([], powers=[power]), "csv")
