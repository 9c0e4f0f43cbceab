"""Predictions of several parts, of pairs and of a regression, as lines and as files."""

import csv
import json
import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests.head_of import head_of
from toolchain.errors import InputError, TextError
from toolchain.evaluation.predict import csv_lines, json_lines, plain_lines, predict, save
from toolchain.records.plain import printable


class Lengths:
    """In the place of a classifier: each text's length is its logit."""

    target = SimpleNamespace(resolved=SimpleNamespace(max_length=8))

    def __init__(self, *, regression=False):
        self.regression, self.seen = regression, []
        self.head = head_of("length") if regression else head_of("short", "long")

    def run(self, texts, *, advance):
        self.seen.append(len(texts))
        advance(len(texts))
        lengths = np.array([[sum(map(len, text))] for text in texts], np.float32)
        logits = lengths if self.regression else np.hstack([5 - lengths, lengths - 5])
        return logits, lengths[:, 0] > self.target.resolved.max_length


PARTS = [[("one",), ("seven and",)], [("two",)]]
PAIRS = [[("one", "two"), ("a,b", 'say "c"')]]


def test_parts_run_one_by_one_and_keep_their_order():
    classifier, done = Lengths(), []
    found = predict(classifier, iter(PARTS), advance=done.append)
    assert classifier.seen == []
    assert [(row["text"], row["label"]) for row in next(found)] == [("one", "short"), ("seven and", "long")]
    assert classifier.seen == [2]
    assert [row["text"] for row in next(found)] == ["two"]
    assert done == [2, 1]


def test_rows_that_were_cut_are_counted_at_the_end(caplog):
    with caplog.at_level(logging.WARNING):
        list(predict(Lengths(), PARTS))
    assert "1 of 3 rows are longer than 8 tokens" in caplog.text


def test_a_text_without_a_token_is_named_by_file_and_row():
    class Tokenless(Lengths):
        def run(self, texts, *, advance):
            if ("two",) in texts:
                raise TextError(("two",), "it has no token.")
            return super().run(texts, advance=advance)

    with pytest.raises(InputError, match=r"^texts\.csv: row 3: it has no token\.$"):
        list(predict(Tokenless(), PARTS, source="texts.csv"))


def test_a_regression_has_a_value_and_no_column_for_labels(tmp_path):
    assert save(predict(Lengths(regression=True), PARTS), tmp_path / "out.csv") == 3
    assert (tmp_path / "out.csv").read_text() == "text,score\none,3.0\nseven and,9.0\ntwo,3.0\n"
    (rows,) = predict(Lengths(regression=True), PARTS[:1])
    assert json.loads(json_lines(rows).splitlines()[0]) == {"text": "one", "label": None, "score": 3}
    assert plain_lines(rows) == b"3.0000\tone\n9.0000\tseven and\n"


def test_pairs_have_both_texts_in_every_form(tmp_path):
    save(predict(Lengths(), PAIRS), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["text"], row["text_pair"]) for row in read] == PAIRS[0]
    (rows,) = predict(Lengths(), PAIRS)
    assert [list(json.loads(line)) for line in json_lines(rows).splitlines()] == [
        ["text", "text_pair", "label", "score"]
    ] * 2
    assert plain_lines(rows).splitlines()[1].endswith(b'\ta,b\tsay "c"')


def test_a_line_for_a_person_is_one_line():
    (rows,) = predict(Lengths(), [[("two\nlines\tand a tab",)]])
    assert plain_lines(rows) == b"long\t1.0000\ttwo lines and a tab\n"
    assert csv_lines(rows, header=True).count(b"\n") == 3
    assert plain_lines([{"text": "two", "label": "a\tb\nc", "score": 1.0}]) == b"a b c\t1.0000\ttwo\n"


def test_an_error_in_a_later_part_leaves_no_file(tmp_path):
    def parts():
        yield PARTS[0]
        raise InputError("row 3 is bad")

    with pytest.raises(InputError, match="row 3 is bad"):
        save(predict(Lengths(), parts()), tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


def test_texts_control_no_terminal_and_are_no_formulas():
    (rows,) = predict(Lengths(), [[("=1+1 \x1b[2J",)]])
    assert plain_lines(rows).endswith(b"\t=1+1 \\u001b[2J\n")
    assert b"\n'=1+1 \\u001b[2J," in csv_lines(rows, header=True)
    assert json.loads(json_lines(rows))["text"] == "=1+1 \x1b[2J"


# What a csv reader, a spreadsheet or a terminal could take for something else than text.
HOSTILE = [
    "=1+1",
    "'=1+1",
    "''@x",
    "'",
    "'tis",
    "-1",
    "'-1",
    "-x",
    "\t=1",
    "\n=1",
    "\uff1d1",
    "a\rb",
    "a\r\n",
    "\n",
    "",
]
HOSTILE += [
    '"',
    'say "c", d',
    " ",
    "NA",
    "null",
    "007",
    "\x00",
    "\x1b[2J",
    "\x85",
    "\u2028",
    "\ud800",
    "\ufeffa",
    "\\",
    "é",
]


def unquoted(cell):
    """Return the text of a cell without the quote that it has before what may be a formula."""
    return (
        cell[1:] if cell[:1] == "'" and cell.lstrip("'").startswith(tuple("=+-@\t\n\uff1d\uff0b\uff0d\uff20")) else cell
    )


def test_a_csv_file_of_hostile_texts_and_labels_has_the_same_rows_for_csv_and_pandas(tmp_path):
    rows = [{"text": a, "text_pair": b, "label": a, "score": 0.5} for a in HOSTILE for b in HOSTILE]
    save([rows[:9], rows[9:]], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert pd.read_csv(tmp_path / "out.csv", dtype=str, keep_default_na=False).to_dict("records") == read
    for row, given in zip(read, rows, strict=True):
        for key in ("text", "text_pair", "label"):
            assert unquoted(row[key]) == printable(given[key])
            assert not row[key].startswith(("=", "@", "\t", "\n", "-x", "\uff1d"))
