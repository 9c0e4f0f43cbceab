"""Texts without labels: rows of a stream and of a table in parts are those of the whole."""

import os
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.data import texts
from toolchain.data.rows import Text, load_rows, read_texts
from toolchain.data.tasks import Task
from toolchain.data.texts import count_lines, from_arguments, from_lines
from toolchain.errors import InputError, UsageError


def streamed(data: bytes, *, parts: int = 1) -> Iterator[list[Text]]:
    """Yield the rows of a pipe that holds `data` and is closed."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        yield from from_lines(reading, parts=parts, source="standard input")
    finally:
        os.close(reading)


def flat(parts: Iterator[list[Text]]) -> list[Text]:
    return [row for part in parts for row in part]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff"), min_size=1), max_size=9))
def test_each_line_is_a_row_wherever_reads_end(lines: list[str]) -> None:
    data, before = "\n".join(lines).encode(), texts.READ_BYTES
    try:
        for size in (3, before):
            texts.READ_BYTES = size
            assert flat(streamed(data)) == [(line,) for line in lines]
            assert flat(streamed(data + b"\n" if lines else b"")) == [(line,) for line in lines]
    finally:
        texts.READ_BYTES = before


def test_a_byte_order_mark_and_carriage_returns_are_not_text() -> None:
    assert flat(streamed(b"\xef\xbb\xbfa\r\nb\r\n")) == [("a",), ("b",)]


def test_a_pair_is_divided_by_a_tab() -> None:
    assert flat(streamed(b"a\tb\nc\td\n", parts=2)) == [("a", "b"), ("c", "d")]
    assert flat(streamed(b"a\tb\n")) == [("a\tb",)]


def test_lines_are_answered_as_they_arrive() -> None:
    reading, writing = os.pipe()
    rows = from_lines(reading, parts=1, source="")
    os.write(writing, b"first\nsec")
    assert next(rows) == [("first",)]
    os.write(writing, b"ond\n")
    assert next(rows) == [("second",)]
    os.close(writing)
    assert list(rows) == []
    os.close(reading)


@pytest.mark.parametrize(
    ("data", "parts", "message"),
    [
        (b"a\n\nb\n", 1, "standard input: row 2 is empty"),
        (b"a\nb\n\xff\n", 1, "standard input: row 3 is not UTF-8"),
        (b"a\tb\nc\n", 2, "standard input: row 2 is not a pair"),
        (b"a\tb\tc\n", 2, "standard input: row 1 is not a pair"),
        (b"a\t\n", 2, "standard input: row 1 is empty"),
    ],
)
def test_a_bad_row_names_itself(data: bytes, parts: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        flat(streamed(data, parts=parts))


def test_arguments_are_texts_or_pairs() -> None:
    assert from_arguments(["a", "b"], parts=1) == [("a",), ("b",)]
    assert from_arguments(["a", "b", "c", "d"], parts=2) == [("a", "b"), ("c", "d")]
    with pytest.raises(UsageError, match="3 texts, but this model reads pairs"):
        from_arguments(["a", "b", "c"], parts=2)
    with pytest.raises(InputError, match="row 2 is not UTF-8"):
        from_arguments(["a", os.fsdecode(b"\xff")], parts=1)


PAIR = Task(name="pair", text_columns=("a", "b"), label_column="label")
TABLE = pandas.DataFrame({"a": [f"text {row}, so" for row in range(7)], "b": list("tuvwxyz"), "label": range(7)})


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_a_table_in_parts_has_the_rows_of_the_whole(tmp_path: Path, suffix: str, rows: int) -> None:
    file = tmp_path / f"train.{suffix}"
    write = {
        "csv": lambda: TABLE.to_csv(file, index=False),
        "tsv": lambda: TABLE.to_csv(file, index=False, sep="\t"),
        "jsonl": lambda: TABLE.to_json(file, orient="records", lines=True),
        "parquet": lambda: TABLE.to_parquet(file),
    }
    write[suffix]()
    parts = list(read_texts(file, ("a", "b"), rows=rows))
    assert [len(part) for part in parts][:-1] == [rows] * (len(parts) - 1)
    assert flat(iter(parts)) == load_rows(PAIR, "train", data=str(tmp_path)).texts
    if suffix != "parquet":
        assert count_lines(file) in (7, 8)


def test_a_hole_is_named_by_its_row_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\none\ntwo\n\nthree\n".replace("\n\n", '\n""\n'))
    with pytest.raises(InputError, match=r"x\.csv: row 3 has an empty cell"):
        list(read_texts(tmp_path / "x.csv", ("a",), rows=2))
    with pytest.raises(InputError, match=r"no column 'b', only 'a'\. Name the columns with --text-column"):
        list(read_texts(tmp_path / "x.csv", ("b",), rows=2))
    with pytest.raises(InputError, match=r"x\.txt: this is not a table that can be read"):
        list(read_texts(tmp_path / "x.txt", ("b",), rows=2))
