import dataclasses
import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.data.rows import Rows, load_rows, read_texts
from toolchain.data.tasks import Task
from toolchain.errors import InputError, MachineError, TextError, UsageError

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


def test_the_quotes_of_a_csv_in_a_tsv_are_refused_but_in_the_files_of_glue_they_are_text(read: Read) -> None:
    table = 'sentence\tlabel\n"a ""b"" c"\t1\n'
    with pytest.raises(InputError, match=r"train\.tsv: its cells are quoted"):
        read(table)
    rows = read(table, task=dataclasses.replace(ONE, hub={"path": "nyu-mll/glue"}))
    assert rows.texts == [('"a ""b"" c"',)]


# Any text of one line: a tsv can hold no tab and no end of line, an empty cell is a missing one, and doubled quotes may
# be those of a csv.
line = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), min_size=1).filter(
    lambda text: text.strip() and '""' not in text
)


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
        ("", "tsv", r"train\.tsv: the file is empty\. Give a file with a header and rows\.$"),
        ("sentence\tlabel\n", "tsv", r"train\.tsv: the file has no rows\. Give a file with at least one row\.$"),
        ("\n\n", "jsonl", r"train\.jsonl: the file has no rows\."),
        ("text\tlabel\na\t1\n", "tsv", r"there is no column 'sentence', only 'text', 'label'\. Name the columns with"),
        ("Sentence ,label\na,1\n", "csv", r"only 'Sentence ', 'label'\. .* exactly as in the file: 'Sentence '\.$"),
        ("sentence|label\na|1\n", "csv", r"only 'sentence\|label'\. .* Commas, semicolons or tabs must separate"),
        (
            "sentence\tlabel\na\t1\n\t0\n",
            "tsv",
            r"train\.tsv: row 2 has an empty cell in the column 'sentence'\. Fill the cell, or remove the row\.$",
        ),
        ("sentence\tlabel\na\t1\nb\n", "tsv", r"row 2 has an empty cell"),
        ('sentence,label\na,1\n"",0\n', "csv", r"row 2 has an empty cell"),
        ('{"sentence": null, "label": 1}', "jsonl", r"row 1 has an empty cell"),
        ('{"sentence": "a", "label": 1}\n{"sentence": "b"}', "jsonl", r"row 2 has an empty cell"),
        (
            "sentence\tlabel\na\tb\t1\n",
            "tsv",
            r"row 1 has more cells than the header\. Remove the extra cells",
        ),
        ("sentence\tlabel\na\t1\na\tb\t1\n", "tsv", r"line 3 has 3 cells, and the header has 2\. "),
        ('sentence,label\n"a,1\n', "csv", r"line 2 has an unclosed quote"),
        ("{", "jsonl", r"line 1 is not JSON"),
        ("[" * 200_000, "jsonl", r"its array is not JSON[^\n]*$"),
        ('{"sentence": ' * 100_000, "jsonl", r"line 1 is not JSON[^\n]*$"),
        ('{"sentence": "a", "label": 1}\n5', "jsonl", r"line 2 is not a JSON object"),
        (b"sentence\tlabel\na\t1\ncaf\xe9\t0\n", "tsv", r"train\.tsv: line 3 is not UTF-8 \(.*\)\. Convert it: iconv"),
        (b'{"sentence": "caf\xe9", "label": 1}', "jsonl", r"train\.jsonl: line 1 is not UTF-8"),
        (b"PAR1", "parquet", r"train\.parquet: the file cannot be read as parquet: .*\. Fix the file\.$"),
        (b"", "parquet", r"train\.parquet: the file cannot be read as parquet"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(read: Read, data: bytes | str, suffix: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(data, suffix)


def test_a_column_in_another_normal_form_is_told_from_one_that_looks_the_same(tmp_path: Path) -> None:
    (tmp_path / "validation.csv").write_text("text,e\u0301tat\na,1\n")
    task = Task(name="custom", text_columns=("text",), label_column="\u00e9tat")
    with pytest.raises(InputError, match="exactly as in the file: 'e\u0301tat'"):
        load_rows(task, "validation", data=str(tmp_path))


def test_missing_values_of_parquet_are_empty_cells(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 2 has an empty cell"):
        parquet(tmp_path, sentence=["a", "b"], label=[1, None])


def test_a_missing_split_names_the_files_that_were_tried(read: Read, tmp_path: Path) -> None:
    read("sentence\tlabel\na\t1\n")
    with pytest.raises(
        InputError, match=r"none of test\.tsv, test\.csv, .*, test\.parquet exists\. The folder has train\. Add"
    ):
        load_rows(ONE, "test", data=str(tmp_path))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"^--data {tmp_path}/no: the folder does not exist\. Give a folder with"):
        load_rows(ONE, "train", data=str(tmp_path / "no"))


def test_a_task_without_data_asks_for_a_folder() -> None:
    with pytest.raises(InputError, match=r"^--task one: the task has no data of its own\. Give your data with --data"):
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


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "Couldn't find cache for nyu-mll/glue for config 'mnli'\nAvailable configs: ['mrpc']",
            MachineError,
        ),
        ("Unknown split \"tran\". Should be one of ['train', 'test'].", UsageError),
    ],
)
def test_what_the_cache_lacks_is_the_machine_s_lack_and_not_a_wrong_name(
    monkeypatch: pytest.MonkeyPatch, said: str, kind: type[Exception]
) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ValueError(said)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(kind) as refused:
        load_rows(HUB, "train")
    assert "\n" not in str(refused.value)


def test_own_data_wins_over_the_hub(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,1\n")
    assert load_rows(HUB, "train", data=str(tmp_path)).texts == [("a",)]


def test_tsv_wins_over_csv(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("sentence,label\na,1\n")
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nb\t1\n")
    assert load_rows(ONE, "train", data=str(tmp_path)).texts == [("b",)]


def test_two_columns_of_one_name_are_refused(read: Read, tmp_path: Path) -> None:
    for suffix, sep in (("csv", ","), ("tsv", "\t")):
        with pytest.raises(InputError, match=r"two columns are called 'label'\. Give them distinct names\.$"):
            read(f"sentence{sep}label{sep}label\na{sep}1{sep}0\n", suffix)
    columns = [pyarrow.array(["a"]), pyarrow.array([0]), pyarrow.array([1])]
    (tmp_path / "one").mkdir()
    names = ["sentence", "label", "label"]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=names), tmp_path / "one/train.parquet")
    with pytest.raises(InputError, match=r"two columns are called 'label'"):
        load_rows(ONE, "train", data=str(tmp_path / "one"))


NO_TEXTS = {
    "a list": ["cold", "plot"],
    "an object": {"en": "cold"},
    "a number": 7,
    "a boolean": True,
}
ARROW_ONLY = {
    "bytes": b"cold",
    "a date": datetime.date(2026, 1, 2),
    "a number": decimal.Decimal("1.5"),
    "a boolean": False,
    "a list": [{"role": "user", "content": "cold"}],
}


@pytest.mark.parametrize(("kind", "cell"), [*NO_TEXTS.items(), ("a list", [])])
def test_a_cell_of_jsonl_that_is_no_text_is_refused(read: Read, kind: str, cell: object) -> None:
    lines = [json.dumps({"sentence": one, "label": 1}) for one in ("a", cell)]
    with pytest.raises(InputError, match=rf"row 2, column 'sentence': the cell is {kind}, .*, and not a text\. "):
        read("\n".join(lines), "jsonl")


@pytest.mark.parametrize(("kind", "cell"), [*NO_TEXTS.items(), *ARROW_ONLY.items()])
@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_a_cell_of_arrow_that_is_no_text_is_refused(tmp_path: Path, form: str, kind: str, cell: object) -> None:
    save(form, tmp_path, datasets.Dataset.from_dict({"sentence": [cell], "label": [1]}))
    with pytest.raises(InputError, match=rf"row 1, column 'sentence': the cell is {kind}, .*, and not a text\. "):
        load_rows(ONE, "train", data=str(tmp_path))


def save(form: str, folder: Path, train: datasets.Dataset) -> None:
    if form == "parquet":
        train.to_parquet(str(folder / "train.parquet"))
    else:
        datasets.DatasetDict({"train": train}).save_to_disk(str(folder))


@pytest.mark.parametrize("cell", [["cold", "plot"], [{"role": "user", "content": "cold"}, {"content": "plot"}]])
@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_lists_and_chat_turns_are_joined_where_that_is_asked(tmp_path: Path, form: str, cell: list[object]) -> None:
    save(form, tmp_path, datasets.Dataset.from_dict({"sentence": [cell], "label": [1]}))
    assert load_rows(ONE, "train", data=str(tmp_path), text_join=" / ").texts == [("cold / plot",)]


@pytest.mark.parametrize("cell", [[["nested"]], [1, 2], [None, "a"], [], {"content": "a"}, [{"content": ["a"]}]])
def test_what_cannot_be_joined_is_refused(tmp_path: Path, cell: object) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"sentence": cell, "label": 1}))
    with pytest.raises(InputError, match="row 1, column 'sentence'") as refused:
        load_rows(ONE, "train", data=str(tmp_path), text_join=" ")
    assert "--text-join '" not in str(refused.value)  # it was given


def test_half_of_a_surrogate_pair_names_its_row(read: Read) -> None:
    whole = json.dumps({"sentence": "a \U0001f600", "label": 1})  # as two escapes
    assert read(whole, "jsonl").texts == [("a \U0001f600",)]
    with pytest.raises(InputError, match=r"row 2, column 'sentence': '\\ud83d' is half of a surrogate pair"):
        read(whole + '\n{"sentence": "b \\ud83d", "label": 1}', "jsonl")


def test_the_parts_of_a_split_are_read_in_order_and_none_may_be_absent(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"sentence": ["a", "b", "c"], "label": [0, 1, 0]})
    (tmp_path / "data").mkdir()
    for at in range(3):
        data.shard(3, at).to_parquet(str(tmp_path / f"data/train-{at:05}-of-00003.parquet"))
    assert load_rows(ONE, "train", data=str(tmp_path)).texts == [("a",), ("b",), ("c",)]
    (tmp_path / "data/train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match=r"train has 2 of 3 files, such as train-00000-of-00003.parquet\. Add the"):
        load_rows(ONE, "train", data=str(tmp_path))


def test_saved_data_sets_keep_the_names_behind_the_numbers(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"sentence": datasets.Value("string"), "label": names})
    data = datasets.Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]}, features=features)
    for form in ("parquet", "saved"):
        (tmp_path / form).mkdir()
        save(form, tmp_path / form, data.select([1, 0]))  # with indices of its own
        rows = load_rows(ONE, "train", data=str(tmp_path / form))
        assert (rows.texts, rows.labels, rows.label_names) == ([("b",), ("a",)], [0, 1], ("bad", "good"))


@pytest.fixture
def single(tmp_path: Path) -> str:
    file = tmp_path / "all.csv"
    rows = [f"text {at % 80},{at % 2},{'train' if at % 4 else 'validation'}" for at in range(100)]
    file.write_text("sentence,label,part\n" + "\n".join(rows) + "\n")
    return str(file)


def test_one_file_is_divided_by_a_column(single: str) -> None:
    rows = load_rows(ONE, "validation", data=single, split_column="part")
    assert rows.texts == [(f"text {at % 80}",) for at in range(0, 100, 4)]
    assert (rows.number(1), rows.take([1]).number(0)) == (5, 5)  # as in the file
    with pytest.raises(InputError, match=r"no row has 'test' in the column 'part', which has only 'validation'"):
        load_rows(ONE, "test", data=single, split_column="part")


def test_a_split_is_read_whatever_is_wrong_with_the_others(tmp_path: Path) -> None:
    """Test rows often have no label."""
    (tmp_path / "all.csv").write_text("sentence,label,part\na,1,train\nb,,test\n,0,test\nc,0,train\nd,,later\n")
    place = str(tmp_path / "all.csv")
    assert load_rows(ONE, "train", data=place, split_column="part").numbers == (1, 4)
    with pytest.raises(InputError, match=r"row 3 has an empty cell in the column 'sentence'"):
        load_rows(ONE, "test", data=place, split_column="part")
    (tmp_path / "test-00000-of-00002.parquet").touch()
    (tmp_path / "train.csv").write_text("sentence,label\na,1\n")
    assert load_rows(ONE, "train", data=str(tmp_path)).texts == [("a",)]


@pytest.mark.parametrize("saved", [False, True])
def test_one_table_is_divided_by_a_share_and_no_text_is_on_both_sides(single: str, tmp_path: Path, saved: bool) -> None:
    if saved:
        datasets.Dataset.from_csv(single, cache_dir=str(tmp_path / "cache")).save_to_disk(str(tmp_path / "saved"))
        single = str(tmp_path / "saved")
    train, validation = (load_rows(ONE, split, data=single, validation_share=0.3) for split in ("train", "validation"))
    assert sorted([*train.numbers, *validation.numbers]) == list(range(1, 101))
    assert not {*train.texts} & {*validation.texts}
    assert 20 <= len(validation) <= 40


def test_a_folder_without_validation_is_divided_too(single: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    Path(single).rename(tmp_path / "folder/train.csv")
    folder = str(tmp_path / "folder")
    parts = [load_rows(ONE, split, data=folder, validation_share=0.3) for split in ("train", "validation")]
    assert sum(map(len, parts)) == 100
    (tmp_path / "folder/test.csv").write_text("sentence,label\na,1\n")
    assert load_rows(ONE, "test", data=folder, validation_share=0.3).texts == [("a",)]
    (tmp_path / "folder/validation.csv").write_text("sentence,label\na,1\n")
    with pytest.raises(InputError, match=r"--validation-share 0\.3: .* has a validation split already"):
        load_rows(ONE, "train", data=folder, validation_share=0.3)


def test_one_file_without_a_way_to_divide_it_says_the_ways(single: str) -> None:
    with pytest.raises(InputError, match=r"one table, without splits\. .*--split-column.*--validation-share"):
        load_rows(ONE, "train", data=single)
    with pytest.raises(InputError, match="not a table that can be read"):
        load_rows(ONE, "train", data=__file__, validation_share=0.5)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("rows", [1, 3, 5, 6])
def test_texts_are_read_in_parts(tmp_path: Path, suffix: str, rows: int) -> None:
    file, texts = tmp_path / f"any.{suffix}", [f"text {at}" for at in range(6)]
    table = pandas.DataFrame({"n": range(6), "text": texts})
    match suffix:
        case "parquet":
            table.to_parquet(file)
        case "jsonl":
            table.to_json(file, orient="records", lines=True)
        case _:
            table.to_csv(file, sep="\t" if suffix == "tsv" else ",")
    parts = list(read_texts(file, ["text"], rows=rows))
    assert [text for part in parts for (text,) in part] == texts
    assert max(map(len, parts)) == rows
    with pytest.raises(InputError, match=r"there is no column 'none', only .*'n', 'text'\. Name"):
        list(read_texts(file, ["none"], rows=rows))


@pytest.mark.parametrize(("suffix", "data"), [("csv", "text,label\n"), ("jsonl", "\n")])
def test_a_file_without_rows_is_refused_in_parts_too(tmp_path: Path, suffix: str, data: str) -> None:
    (tmp_path / f"any.{suffix}").write_text(data)
    with pytest.raises(InputError, match="no rows"):
        list(read_texts(tmp_path / f"any.{suffix}", ["text"], rows=3))


def test_a_cell_that_cannot_be_read_in_a_later_part_has_the_number_of_its_row(tmp_path: Path) -> None:
    (tmp_path / "any.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ("a", "b", "c", 4)))
    with pytest.raises(InputError, match=r"row 4, column 'text': the cell is a number, 4, and not a text"):
        list(read_texts(tmp_path / "any.jsonl", ["text"], rows=3))


def test_a_missing_split_names_those_that_are_there(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text("sentence,label\na,1\n")
    with pytest.raises(InputError, match=r"The folder has dev, train\. "):
        load_rows(ONE, "validation", data=str(tmp_path))


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


def test_text_digests_fold_inner_space_and_the_normal_form_and_nothing_else() -> None:
    forms = ["caf\u00e9 au lait", "cafe\u0301  au\n lait", "Caf\u00e9\u00a0au lait\t"]
    others = ["cafe au lait", "caf\u00e9aulait", "caf\u00e9 au lait!"]
    digests = Rows("file", [(text,) for text in forms + others], [0] * 6).text_digests
    assert len(set(digests[:3])) == 1
    assert len(set(digests)) == 4


def test_a_pair_with_its_texts_exchanged_is_the_same_text() -> None:
    train = Rows("train", [("a", "b"), ("c", "d"), ("d", "c"), ("a", "a")], [0, 1, 1, 0])
    validation = Rows("validation", [("B", "a "), ("e", "f")], [0, 1])
    assert train.among(validation.text_digests).tolist() == [True, False, False, False]
    assert train.without(validation.text_digests).texts == [("c", "d"), ("a", "a")]


def test_both_orders_of_a_pair_are_on_the_same_side_of_a_share(tmp_path: Path) -> None:
    pairs = [(f"text {at}", f"other {at}") for at in range(40)]
    lines = [json.dumps({"a": a, "b": b, "label": 1}) for one, two in pairs for a, b in ((one, two), (two, one))]
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    found = load_rows(PAIR, "validation", data=str(tmp_path / "all.jsonl"), validation_share=0.5)
    assert 0 < len(found) < 80
    assert set(found.texts) == {(two, one) for one, two in found.texts}


def test_a_text_that_the_model_cannot_take_has_its_file_and_row() -> None:
    rows = Rows("f.csv", [("a",), ("",)], [0, 1], numbers=(4, 7))
    with pytest.raises(InputError, match=r"^f\.csv: row 7: no token$"), rows.placed():
        raise TextError(("",), "no token")


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
    rows = load_rows(load_task(Recipe(task=name)), "train", data=str(folder))
    assert len(rows) == (folder / "train.tsv").read_bytes().count(b"\n") - 1
    assert {len(text) for text in rows.texts} == {columns}
