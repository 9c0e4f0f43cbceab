"""Tables hold at 80 columns: what is wider is printed row by row."""

import pytest

from toolchain.cli.show import put, titled


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


def test_a_file_gets_the_whole_table(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    put(table(7))
    assert any("heading 0" in line and "heading 6" in line for line in capsys.readouterr().out.splitlines())
