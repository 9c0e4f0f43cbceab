"""`toolchain predict`: the labels are those of a transformers pipeline, one for each row, from every kind of source."""

import csv
import io
import json
import os
import sys

import pytest

from toolchain.cli import main

TEXTS = ["a good film", "a bad film, and too long", 'he said "no"', "the cat never liked the plot"]


@pytest.fixture(scope="module")
def bundle(typed_bundles):
    return str(typed_bundles["fp32"])


@pytest.fixture(scope="module")
def expected(typed_bundles):
    import transformers

    pipeline = transformers.pipeline("text-classification", model=str(typed_bundles["fp32"].parent / "away"))
    return pipeline(TEXTS)


@pytest.fixture
def stdin(monkeypatch):
    """Return a function that puts bytes on standard input."""
    reading, writing = os.pipe()

    def put(data):
        os.write(writing, data)
        os.close(writing)

    with os.fdopen(reading) as file:
        monkeypatch.setattr(sys, "stdin", file)
        yield put


def check(rows, expected):
    assert [row["text"] for row in rows] == TEXTS
    assert [row["label"] for row in rows] == [one["label"] for one in expected]
    assert [float(row["score"]) for row in rows] == pytest.approx([one["score"] for one in expected], abs=1e-4)


def test_texts_of_the_command_line(bundle, expected, capfd):
    assert main(["predict", bundle, *TEXTS, "--json"]) == 0
    out, errors = capfd.readouterr()
    check([json.loads(line) for line in out.splitlines()], expected)
    assert errors == f"{bundle}: ort fp32.cpu on cpu\n"


def test_lines_of_standard_input(bundle, expected, stdin, capfd):
    stdin("\n".join(TEXTS).encode())
    assert main(["predict", bundle]) == 0
    cells = [line.split("\t") for line in capfd.readouterr().out.splitlines()]
    check([{"text": text, "label": label, "score": score} for label, score, text in cells], expected)


@pytest.mark.parametrize(("kind", "read"), [("csv", csv.DictReader), ("jsonl", lambda file: map(json.loads, file))])
def test_a_table_and_a_file_of_labels(bundle, expected, tmp_path, capfd, kind, read):
    written = io.StringIO()
    csv.writer(written).writerows([("id", "body"), *enumerate(TEXTS)])
    (tmp_path / "in.csv").write_text(written.getvalue())
    out = tmp_path / f"out.{kind}"
    command = ["predict", bundle, "--data", str(tmp_path / "in.csv"), "--text-column", "body", "-o", str(out)]
    assert main(command) == 0
    with out.open(newline="") as file:
        check(list(read(file)), expected)
    assert capfd.readouterr().out == f"{out}: 4 rows\n"
    (tmp_path / "in.csv").write_text('body\na\n""\n')
    before = out.read_bytes()
    assert main(command) == 1
    assert "in.csv: row 2 has an empty cell" in capfd.readouterr().err
    assert (out.read_bytes(), sorted(os.listdir(tmp_path))) == (before, sorted(["in.csv", out.name]))


def test_a_bad_line_ends_with_1(bundle, stdin, capfd):
    stdin(b"a film\n\n")
    assert main(["predict", bundle]) == 1
    assert "standard input: row 2 is empty" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["a good film"], 1, "a good film: no such bundle. Give the bundle first"),
        (["BUNDLE", "a", "--data", "in.csv"], 2, "--data in.csv: texts are given as arguments too"),
        (["BUNDLE", "--data", "nothing.csv"], 1, "nothing.csv: no such file"),
        (["BUNDLE", "a", "-o", "out.txt"], 2, "--output out.txt: the suffix does not name a format"),
        (["BUNDLE", "--data", "same.csv", "-o", "same.csv"], 2, "the texts are read from this file"),
        (["BUNDLE", "--data", "same.csv", "--text-column", "a,b"], 2, "--text-column a,b: the model takes 1"),
        (["BUNDLE", "a", "--gpu", "t4"], 2, "toolchain estimate BUNDLE --gpu NAME"),
    ],
)
def test_wrong_use_is_one_line(bundle, tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "same.csv").write_text("sentence\na\n")
    assert main(["predict", *(bundle if word == "BUNDLE" else word for word in arguments)]) == code
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_the_bound_on_a_gpu_still_answers_with_a_warning(bundle, capsys):
    assert main(["predict", bundle, "--gpu", "t4", "--idle-power", "9", "--json"]) == 0
    old = capsys.readouterr()
    assert "is now `toolchain estimate --gpu`" in old.err
    assert main(["estimate", bundle, "--gpu", "t4", "--idle-power", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(old.out)
