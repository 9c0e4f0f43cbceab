"""Tables hold at 80 columns: what is wider is printed row by row."""

import re

import pytest

from tests.report.conftest import RESULT
from toolchain.cli.show import put, titled
from toolchain.cli.show.build import built
from toolchain.cli.show.results import result


def table(columns):
    made = titled("A title")
    for number in range(columns):
        made.add_column(f"heading {number}", no_wrap=True)
    made.add_row("first", *(f"cell {number} of a row" for number in range(1, columns - 1)), "-")
    return made


@pytest.mark.parametrize(("columns", "blocks"), [(3, False), (9, True)])
def test_a_table_wider_than_the_terminal_is_printed_row_by_row(monkeypatch, capsys, columns, blocks):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    put(table(columns))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= (80 if blocks else 124)
    assert ("  heading 1  cell 1 of a row" in lines) == blocks
    assert ("first" in lines) == blocks


def shown(monkeypatch, capsys, *things):
    """Return the lines of things on a terminal of 80 columns."""
    return on_a_terminal(monkeypatch, capsys, lambda: put(*things))


def on_a_terminal(monkeypatch, capsys, show):
    """Return the lines that `show` prints on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    show()
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_wide_table_loses_empty_columns_and_gaps_before_it_loses_its_rows(monkeypatch, capsys):
    made = titled("T")
    for width in (20, 20, 20, 15, 30):
        made.add_column("h" * width, no_wrap=True)
    made.add_row("a" * 20, "b" * 20, "c" * 20, "d" * 15, "-")
    lines = shown(monkeypatch, capsys, made)
    assert f"{'a' * 20} {'b' * 20} {'c' * 20} {'d' * 15}" in lines
    assert max(map(len, lines)) <= 80


def test_a_long_title_is_wrapped_between_words(monkeypatch, capsys):
    made = titled("some words " * 12)
    made.add_column("heading")
    made.add_row("cell")
    lines = shown(monkeypatch, capsys, made)
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).count("some words") == 12


def test_text_in_a_wide_table_is_wrapped(monkeypatch, capsys):
    made = titled("T")
    made.add_column("name", no_wrap=True)
    made.add_column("note")
    made.add_row("n" * 40, "some words " * 12)
    lines = shown(monkeypatch, capsys, made)
    assert max(map(len, lines)) <= 80
    assert sum("some words" in line for line in lines) > 3
    assert not any("…" in line for line in lines)


def test_text_is_wrapped_between_words_and_a_command_is_not(monkeypatch, capsys):
    command = "next: toolchain build --precision int8 " + "--option value " * 6
    lines = shown(monkeypatch, capsys, "  " + "word " * 30, command)
    assert lines[-1] == command.rstrip()
    assert [line[:8] for line in lines[:2]] == ["  word w", "    word"]
    assert max(map(len, lines[:-1])) <= 80
    assert max(map(len, shown(monkeypatch, capsys, "some words " * 8 + "tell: toolchain accept"))) <= 80


def test_the_last_lines_of_an_evaluation_hold_at_80_columns(monkeypatch, capsys):
    file = "engines/build/demo-demo-int8/results/demo-validation-ort-cpu-int8.cpu.json"
    lines = on_a_terminal(monkeypatch, capsys, lambda: result({**RESULT, "file": file}))
    assert max(map(len, lines)) <= 80
    assert lines[-3:-1] == ["saved in", f"  {file}"]


def test_a_file_gets_the_whole_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    put(table(7))
    assert any("heading 0" in line and "heading 6" in line for line in capsys.readouterr().out.splitlines())


def test_a_build_warns_of_integer_sums_beyond_float16(capsys):
    sums = [{"tensor": "layer.0.ffn.lin2", "amax": 410715.0}, {"tensor": "layer.1.ffn.lin2", "amax": 7e4}]
    views = {"model.int8.onnx": {"target": "tensorrt", "kept": [], "large_sums": sums}}
    record = {"bundle": "b", "precision": "int8", "up_to_date": False, "done": ["quantize"], "skipped": []}
    record["next"] = "toolchain eval b"
    built({**record, "quantize": {"views": views, "products_on_cpu": {}}})
    said = capsys.readouterr().out
    assert "warning: model.int8.onnx: integer sums of 2 GEMMs exceed the range of float16 (up to 410,715 at " in said
    assert "toolchain accept" in said
