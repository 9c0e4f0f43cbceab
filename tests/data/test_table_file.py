"""Files as other programs write them: pandas, spreadsheets, databases, Windows, Git LFS."""

import bz2
import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas
import pytest

from toolchain.data.table_file import Table, read_parts, refuse_quotes
from toolchain.errors import InputError

FRAME = pandas.DataFrame({"text": ["a; b", 'he said "c, d"', "e\nf"], "label": [0, 1, 1]})
# The same table without what a tsv cannot hold.
PLAIN = pandas.DataFrame({"text": ["a; b", "c, d", "e f"], "label": [0, 1, 1]})


def cells(tables: Iterable[Table]) -> list[tuple[str, int]]:
    return [(text, int(label)) for table in tables for text, label in zip(*table.columns.values(), strict=True)]


def rows(frame: pandas.DataFrame) -> list[tuple[str, int]]:
    return [(str(text), int(label)) for text, label in frame.itertuples(index=False)]


@pytest.mark.parametrize("sep", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("size", [None, 2])
def test_a_csv_of_any_spreadsheet_is_read(tmp_path: Path, sep: str, end: str, start: str, size: int | None) -> None:
    file = tmp_path / "any.CSV"
    file.write_bytes((start + FRAME.to_csv(index=False, sep=sep, lineterminator=end)).encode())
    assert cells(read_parts(file, size)) == rows(FRAME)


@pytest.mark.parametrize("name", ["any.json", "any.jsonl", "any.ndjson"])
@pytest.mark.parametrize("form", ["array", "indented", "lines"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n  "])
@pytest.mark.parametrize("size", [None, 1, 3])
def test_an_array_and_lines_of_json_are_read_by_any_name(
    tmp_path: Path, name: str, form: str, start: str, size: int | None
) -> None:
    objects = [dict(zip(FRAME, row, strict=True)) for row in rows(FRAME)]
    text = {
        "array": json.dumps(objects),
        "indented": json.dumps(objects, indent=2),
        "lines": "\n".join(map(json.dumps, objects)),
    }[form]
    (tmp_path / name).write_text(start + text, encoding="utf-8")
    assert cells(read_parts(tmp_path / name, size)) == rows(FRAME)


OBJECT = {"version": 1, "data": json.loads(FRAME.to_json(orient="records"))}


@pytest.mark.parametrize("text", [FRAME.to_json(), json.dumps(OBJECT), json.dumps(OBJECT, indent=2)])
def test_an_object_with_rows_in_it_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "any.json").write_text(text)
    with pytest.raises(InputError, match=r"any\.json: the file is one object, and not rows\. Write .* lines=True\.$"):
        next(read_parts(tmp_path / "any.json"))


@pytest.mark.parametrize(
    ("text", "where"), [("[1, {}]", "item 1 is not a JSON object"), ("[{}", "its array is not JSON")]
)
def test_a_broken_array_is_refused(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "any.json").write_text(text)
    with pytest.raises(InputError, match=rf"any\.json: {where}\. Fix the file\.$"):
        next(read_parts(tmp_path / "any.json"))


def test_a_tsv_with_the_quotes_of_a_csv_is_refused_and_read_as_a_csv(tmp_path: Path) -> None:
    quoted = tmp_path / "any.tsv"
    PLAIN.replace("c, d", 'he said "c"').to_csv(quoted, sep="\t", index=False)
    with pytest.raises(InputError, match=r'quoted, such as "he said ""c""", but quotes .* Rename the file to \.csv'):
        refuse_quotes(next(read_parts(quoted)))
    assert ('he said "c"', 1) in cells(read_parts(quoted.rename(tmp_path / "any.csv")))


@pytest.mark.parametrize("change", ['"c"', 'c "d"', '"c" ""d""', ""])
def test_a_tsv_without_the_quotes_of_a_csv_is_read_as_it_stands(tmp_path: Path, change: str) -> None:
    frame = PLAIN.replace("c, d", change or "c, d")
    frame.to_csv(tmp_path / "any.tsv", sep="\t", index=False, quoting=csv.QUOTE_NONE)
    assert cells(read_parts(tmp_path / "any.tsv")) == rows(frame)
    refuse_quotes(next(read_parts(tmp_path / "any.tsv")))


UNREAD: dict[str, tuple[str, Any, str]] = {
    "Excel's Unicode text": (
        "any.csv",
        FRAME.to_csv().encode("utf-16"),
        r"iconv -f UTF-16 -t UTF-8 any\.csv > NEW\.csv$",
    ),
    "a quote without an end": (
        "any.csv",
        b'"' + b"a" * 140_000,
        r"any\.csv: line 1 has an unclosed quote",
    ),
    "an old encoding": ("any.csv", "text\ncafé\n".encode("cp1252"), r"line 2 is not .* iconv -f ENCODING -t .*1252"),
    "gzip": ("any.csv.gz", b"\x1f\x8b", r"not a table that can be read\. Unpack it: gunzip any\.csv\.gz$"),
    "Git LFS": (
        "any.parquet",
        b"version https://git-lfs.github.com/spec/v1\n",
        r"a Git LFS pointer.*: git lfs pull$",
    ),
    "gzip by the name of a csv": ("any.csv", b"\x1f\x8b\x08\0", r"despite the suffix\. Unpack it: gunzip <"),
    "a workbook by the name of a csv": ("any.csv", b"PK\x03\x04\x14", "an archive or a workbook: unpack it, or save"),
    "bzip2 by the name of a csv": ("any.csv", bz2.compress(b"text\n"), r"despite the suffix\. Unpack it: bunzip2 <"),
    "parquet by the name of a csv": ("any.csv", b"PAR1\x15", r"It is a parquet file: rename it to \.parquet\.$"),
    "a line for a spreadsheet": ("any.csv", b"sep=;\na;b\n", r"its first line, 'sep=;', is only for spreadsheets"),
    "a workbook": ("any.xlsx", b"PK", r"not a table .* Give a file whose name ends with \.tsv, \.csv, .*\.parquet\.$"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_a_file_of_another_kind_is_refused_with_the_command_that_helps(tmp_path: Path, kind: str) -> None:
    name, data, message = UNREAD[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        next(read_parts(tmp_path / name))


@pytest.mark.parametrize("header", ["PAR1", "BZh9"])
def test_a_header_that_begins_like_another_kind_of_file_is_a_header(tmp_path: Path, header: str) -> None:
    (tmp_path / "any.csv").write_text(f"{header},label\na,1\n")
    assert next(read_parts(tmp_path / "any.csv")).columns[header] == ["a"]


def rows_of(tmp_path: Path, data: str | bytes, suffix: str = "csv") -> dict[str, list[Any]]:
    file = tmp_path / f"train.{suffix}"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    (table,) = read_parts(file)
    return table.columns


def test_a_blank_line_is_an_empty_cell_of_one_column_and_no_row_of_several(tmp_path: Path) -> None:
    """`predict` writes one row for each row that it reads, so none may vanish."""
    assert rows_of(tmp_path, "text\na\n\nb\n") == {"text": ["a", None, "b"]}
    assert rows_of(tmp_path, "text,label\na,1\n\nb,0\n") == {"text": ["a", "b"], "label": ["1", "0"]}


def test_a_lost_quote_does_not_hold_the_rest_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolchain.data.table_file.LONGEST_CELL", 1000)
    (tmp_path / "any.csv").write_text('text,label\n"lost,1\n' + "plain,1\n" * 10_000)
    with pytest.raises(InputError, match=r"lines 2 to 1\d\d have .* or a cell of more than 1,000 characters\."):
        next(read_parts(tmp_path / "any.csv"))


def test_signs_in_quotes_do_not_divide_columns(tmp_path: Path) -> None:
    assert rows_of(tmp_path, '"text, raw";label\na, b;1\n') == {"text, raw": ["a, b"], "label": ["1"]}


@pytest.mark.parametrize("mark", [True, False])
def test_utf_16_is_named_with_and_without_its_mark(tmp_path: Path, mark: bool) -> None:
    data = "text,label\na,1\n".encode("utf-16" if mark else "utf-16-le")
    with pytest.raises(InputError, match=rf"UTF-16\..*iconv -f UTF-16{'' if mark else 'LE'} -t UTF-8 train\.csv"):
        rows_of(tmp_path, data)


def test_a_line_that_is_longer_than_the_header_is_named_with_both_lengths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3 has 3 cells, and the header has 2\. Put quotes"):
        rows_of(tmp_path, "text,label\na,1\nb, c,0\n")


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        (['"good film,1', "bad,0", '"fine" film,1', "poor,0"], "lines 2 to 4 have"),  # two lost quotes hide a row
        (["bad,0", '"good film,1', "poor,0"], "lines 3 to 4 have"),
    ],
)
@pytest.mark.parametrize("size", [None, 1])
def test_a_csv_whose_quotes_hide_rows_is_refused(
    tmp_path: Path, lines: list[str], where: str, size: int | None
) -> None:
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines, ""]))
    with pytest.raises(InputError, match=rf"train\.csv: {where} an unclosed quote"):
        list(read_parts(tmp_path / "train.csv", size))


def test_a_text_longer_than_csv_takes_by_default_is_read(tmp_path: Path) -> None:
    long = "good " * 100_000
    (tmp_path / "train.csv").write_text(f'text,label\n"{long}",1\n')
    assert cells(read_parts(tmp_path / "train.csv")) == [(long, 1)]


@pytest.mark.parametrize(("form", "where"), [("{}\n", "line 2"), ("[{}]", "its array")])
def test_a_key_that_stands_twice_in_a_row_is_refused(tmp_path: Path, form: str, where: str) -> None:
    one, two = '{"text": "a", "label": 1}', '{"text": "b", "text": "c", "label": 1}'
    (tmp_path / "train.json").write_text(form.format(f"{one}{',' if '[' in form else ''}\n{two}"))
    with pytest.raises(InputError, match=rf"train\.json: {where} has the key 'text' twice"):
        list(read_parts(tmp_path / "train.json"))
