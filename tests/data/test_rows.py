import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.data.rows import Rows, load_rows
from toolchain.data.tasks import Task
from toolchain.errors import InputError, MachineError

ONE = Task(name="one", text_columns=("sentence",), label_column="label")
PAIR = Task(name="pair", text_columns=("a", "b"), label_column="label")
HUB = Task(
    name="mnli",
    text_columns=("sentence",),
    label_column="label",
    hub={"path": "nyu-mll/glue", "config": "mnli", "splits": {"validation": "validation_matched"}},
)
Read = Callable[..., Rows]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write `train.<suffix>` and read it."""

    def from_bytes(data: bytes | str, suffix: str = "tsv", task: Task = ONE) -> Rows:
        (tmp_path / f"train.{suffix}").write_bytes(data.encode() if isinstance(data, str) else data)
        return load_rows(task, "train", data=str(tmp_path))

    return from_bytes


def parquet(folder: Path, **columns: Any) -> Rows:
    pandas.DataFrame(columns).to_parquet(folder / "train.parquet")
    return load_rows(ONE, "train", data=str(folder))


def test_tsv_has_no_quoting(read: Read) -> None:
    rows = read('sentence\tlabel\n"a\t1\nb "q" c\t0\nc"\t1\n""\t0\n')
    assert rows.texts == [('"a',), ('b "q" c',), ('c"',), ('""',)]
    assert rows.labels == ["1", "0", "1", "0"]


# Any text of one line: a tsv can hold no tab and no end of line, and an empty cell is a missing one.
line = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), min_size=1).filter(str.strip)


@settings(max_examples=50)
@given(st.lists(line, min_size=1, max_size=8))
def test_tsv_keeps_every_row_and_character(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.getbasetemp()
    cells = "".join(f"{text}\t{number}\n" for number, text in enumerate(texts))
    (folder / "train.tsv").write_bytes(f"sentence\tlabel\n{cells}".encode())
    rows = load_rows(ONE, "train", data=str(folder))
    assert rows.texts == [(text,) for text in texts]
    assert rows.labels == [str(number) for number in range(len(texts))]


def test_csv_has_quotes(read: Read) -> None:
    rows = read('label,sentence\n1,"a, ""b""\nnext"\n0,c\n', "csv")
    assert (rows.texts, rows.labels) == ([('a, "b"\nnext',), ("c",)], ["1", "0"])


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=8), st.booleans())
def test_jsonl_keeps_every_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str], plain: bool) -> None:
    folder = tmp_path_factory.mktemp("jsonl")
    lines = [json.dumps({"sentence": text, "label": 1}, ensure_ascii=plain) for text in texts]
    (folder / "train.jsonl").write_bytes("\n".join(lines).encode())
    assert load_rows(ONE, "train", data=str(folder)).texts == [(text,) for text in texts]


@pytest.mark.parametrize("end", ["\u2028", "\x85", "\x1e"])
def test_a_text_of_jsonl_may_hold_what_python_calls_a_line_end(read: Read, end: str) -> None:
    assert read(json.dumps({"sentence": f"a{end}b", "label": 1}, ensure_ascii=end < " "), "jsonl").texts == [
        (f"a{end}b",)
    ]


def test_parquet_keeps_types(tmp_path: Path) -> None:
    rows = parquet(tmp_path, sentence=["a", ""], label=[0.5, 2.0])
    assert (rows.texts, rows.labels) == ([("a",), ("",)], [0.5, 2.0])


def test_pairs_come_in_the_task_s_order(read: Read) -> None:
    assert read("b\tlabel\ta\ntwo\t0\tone\n", task=PAIR).texts == [("one", "two")]


def test_text_that_looks_like_nothing_is_text(read: Read) -> None:
    assert read("sentence\tlabel\nNA\tnull\nnan\tNone\n").labels == ["null", "None"]


@pytest.mark.parametrize(
    ("data", "suffix"),
    [("sentence\tlabel\r\na\t1\r\n", "tsv"), ('{"sentence": "a", "label": "1"}\r\n', "jsonl")],
)
def test_byte_order_mark_and_windows_line_ends(read: Read, data: str, suffix: str) -> None:
    assert read("\ufeff" + data, suffix).labels == ["1"]


def test_empty_cells_beyond_the_header_are_ignored(read: Read) -> None:
    assert read("sentence\tlabel\na\t1\t\nb\t0\t\n").texts == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("data", "suffix", "message"),
    [
        ("", "tsv", r"train\.tsv: empty\. Give a file with a header and rows\.$"),
        ("sentence\tlabel\n", "tsv", r"train\.tsv: no rows\. Give a file with at least one row\.$"),
        ("\n\n", "jsonl", r"train\.jsonl: no rows\."),
        ("text\tlabel\na\t1\n", "tsv", r"there is no column 'sentence', only text, label\. Name the columns with"),
        ("sentence\tlabel\na\t1\n\t0\n", "tsv", r"train\.tsv: row 2 has an empty cell\. Fill or remove it\.$"),
        ("sentence\tlabel\na\t1\nb\n", "tsv", r"row 2 has an empty cell"),
        ('sentence,label\na,1\n"",0\n', "csv", r"row 2 has an empty cell"),
        ('{"sentence": null, "label": 1}', "jsonl", r"row 1 has an empty cell"),
        ('{"sentence": "a", "label": 1}\n{"sentence": "b"}', "jsonl", r"row 2 has an empty cell"),
        ("sentence\tlabel\na\tb\t1\n", "tsv", r"train\.tsv: row 1 has more cells than the header\. Fix the file\.$"),
        ("sentence\tlabel\na\t1\na\tb\t1\n", "tsv", r"cannot be read as tsv: .*line 3, saw 3\. Fix the file\.$"),
        ('sentence,label\n"a,1\n', "csv", r"cannot be read as csv: .*EOF inside string"),
        ("{", "jsonl", r"line 1 is not JSON"),
        ('{"sentence": "a", "label": 1}\n5', "jsonl", r"line 2 is not a JSON object"),
        (b"sentence\tlabel\na\t1\ncaf\xe9\t0\n", "tsv", r"train\.tsv: not UTF-8 in line 3 \(.*\)\. Convert it\.$"),
        (b'{"sentence": "caf\xe9", "label": 1}', "jsonl", r"train\.jsonl: not UTF-8 in line 1"),
        (b"PAR1", "parquet", r"train\.parquet: cannot be read as parquet: .*\. Fix the file\.$"),
        (b"", "parquet", r"train\.parquet: cannot be read as parquet"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(read: Read, data: bytes | str, suffix: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(data, suffix)


def test_missing_values_of_parquet_are_empty_cells(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 2 has an empty cell"):
        parquet(tmp_path, sentence=["a", "b"], label=[1, None])


def test_a_missing_split_names_the_files_that_were_tried(read: Read, tmp_path: Path) -> None:
    read("sentence\tlabel\na\t1\n")
    with pytest.raises(InputError, match=r"none of test\.tsv, test\.csv, test\.jsonl, test\.parquet exists\. Add"):
        load_rows(ONE, "test", data=str(tmp_path))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^--data {tmp_path}/no: the folder does not exist\. Give one"):
        load_rows(ONE, "train", data=str(tmp_path / "no"))


def test_a_task_without_data_asks_for_a_folder() -> None:
    with pytest.raises(InputError, match=r"^--task one: the task has no data of its own\. Name a folder with --data"):
        load_rows(ONE, "train")


def test_the_hub_is_asked_for_its_name_of_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, config: str, *, split: str) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"sentence": [f"{path} {config} {split}"], "label": [2]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = load_rows(HUB, "validation")
    assert (rows.texts, rows.labels) == ([("nyu-mll/glue mnli validation_matched",)], [2])


def test_a_hub_that_cannot_be_reached_is_the_machine_s_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        MachineError, match=r"^--task mnli: the split train of nyu-mll/glue cannot be .*\(ConnectionError\)\."
    ):
        load_rows(HUB, "train")


def test_own_data_wins_over_the_hub(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,1\n")
    assert load_rows(HUB, "train", data=str(tmp_path)).texts == [("a",)]


def test_tsv_wins_over_csv(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,1\n")
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nb\t1\n")
    assert load_rows(ONE, "train", data=str(tmp_path)).texts == [("b",)]


ROWS = Rows("file", [("A ",), ("b",), ("c",)], [0, 1, 0])


def test_take_keeps_the_order_asked_for() -> None:
    taken = ROWS.take(np.array([2, 0, 0]))
    assert (taken.texts, taken.labels, len(taken)) == ([("c",), ("A ",), ("A ",)], [0, 0, 0], 3)


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 5))
def test_a_sample_is_of_different_rows_in_the_file_s_order(total: int, count: int, seed: int) -> None:
    rows = Rows("file", [(str(number),) for number in range(total)], list(range(total)))
    sampled = rows.sample(count, seed=seed).labels
    assert sampled == sorted(set(sampled))
    assert len(sampled) == min(count, total)
    assert sampled == rows.sample(count, seed=seed).labels


def test_samples_differ_by_seed() -> None:
    rows = Rows("file", [("a",)] * 100, list(range(100)))
    assert rows.sample(10, seed=0).labels != rows.sample(10, seed=1).labels


def test_digest_is_of_texts_and_labels_in_order_and_not_of_the_file() -> None:
    assert ROWS.digest == Rows("other", ROWS.texts, ["0", "1", "0"]).digest
    others = [ROWS.take([1, 0, 2]), ROWS.take([0, 1]), Rows("file", ROWS.texts, [1, 1, 0])]
    assert ROWS.digest not in {other.digest for other in others}


def test_text_digests_fold_case_and_outer_space() -> None:
    assert ROWS.text_digests == Rows("another", [("a",), (" B",), ("c",)], [1, 1, 1]).text_digests


def test_rows_without_others_hold_each_text_once() -> None:
    rows = Rows("file", [("a",), ("b",), ("B ",), ("c",)], [0, 1, 2, 3])
    assert rows.without(ROWS.take([0]).text_digests).texts == [("b",), ("c",)]


SHARED = [("mrpc", 2), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("sst2", 1), ("qqp", 2), ("stsb", 2)))]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "columns"), SHARED)
def test_real_glue_keeps_every_line(shared: Callable[[str], Path], name: str, columns: int) -> None:
    from toolchain.data.tasks import load_task
    from toolchain.recipe import Recipe

    folder = shared(f"glue/{name}")
    rows = load_rows(load_task(Recipe(task=name), regression=False), "train", data=str(folder))
    assert len(rows) == (folder / "train.tsv").read_bytes().count(b"\n") - 1
    assert {len(text) for text in rows.texts} == {columns}
