import datetime
import decimal
import logging
import unicodedata
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.data.labels import check_labels, check_texts, in_task_order, read_labels, read_numbers
from toolchain.data.rows import Rows
from toolchain.data.tasks import Task
from toolchain.errors import InputError

SST2 = Task(name="sst2", text_columns=("t",), label_column="l", labels=("negative", "positive"))
MNLI = Task(name="mnli", text_columns=("t",), label_column="l", labels=("entailment", "neutral", "contradiction"))
CUSTOM = Task(name="custom", text_columns=("t",), label_column="l")
GENERIC = ["LABEL_0", "LABEL_1"]


def read(labels: list[Any], task: Task, model_labels: list[str]) -> list[Any]:
    found: list[Any] = read_labels(Rows("file.tsv", [("t",)] * len(labels), labels), task, model_labels).tolist()
    return found


@pytest.mark.parametrize("model", [["negative", "positive"], ["NEGATIVE", "POSITIVE"], ["Negative ", " positive"]])
def test_names_are_matched_in_any_case(model: list[str]) -> None:
    assert read(["negative", "POSITIVE", "Positive"], SST2, model) == [0, 1, 1]


def test_names_are_matched_in_any_order() -> None:
    model = ["contradiction", "entailment", "neutral"]
    assert read(["entailment", "neutral", "contradiction"], MNLI, model) == [1, 2, 0]


def test_spaces_hyphens_and_underscores_between_words_are_alike() -> None:
    task = Task(name="rte", text_columns=("t",), label_column="l", labels=("entailment", "not_entailment"))
    assert read(["not_entailment", "not entailment"], task, ["Not-Entailment", "Entailment"]) == [0, 0]


@pytest.mark.parametrize("form", [int, float, str, lambda n: f"{n}.0", lambda n: f" {n} "])
def test_numbers_are_indices_into_the_task_s_labels(form: Any) -> None:
    model = ["contradiction", "entailment", "neutral"]
    assert read([form(0), form(1), form(2)], MNLI, model) == [1, 2, 0]


@given(st.permutations(MNLI.labels), st.lists(st.integers(0, 2), min_size=1))
def test_a_number_means_what_its_name_means(model: list[str], numbers: list[int]) -> None:
    assert read(numbers, MNLI, model) == read([MNLI.labels[number] for number in numbers], MNLI, model)


def test_generic_names_are_taken_by_index_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read(["positive", "0", 1], SST2, GENERIC) == [1, 0, 1]
    assert "matched by index, in the order negative, positive" in caplog.text


def test_names_that_match_give_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    read(["positive"], SST2, ["negative", "positive"])
    assert not caplog.text


def test_custom_tasks_take_the_model_s_names_or_indices() -> None:
    assert read(["joy", "ANGER", "1", 0], CUSTOM, ["anger", "joy"]) == [1, 0, 1, 0]


def test_names_that_are_numbers_are_names() -> None:
    assert read(["1", 2, "3.0"], CUSTOM, ["1", "2", "3"]) == [0, 1, 2]
    with pytest.raises(InputError, match="row 1 has the label '0'"):
        read(["0"], CUSTOM, ["1", "2", "3"])


def test_names_of_punctuation_are_told_apart() -> None:
    assert read(["+", "-"], CUSTOM, ["-", "+"]) == [1, 0]


def test_negative_numbers_keep_their_sign() -> None:
    assert read(["-1", 1], CUSTOM, ["-1", "1"]) == [0, 1]
    with pytest.raises(InputError, match=r"row 1 has the label -1, which"):
        read([-1], SST2, GENERIC)


def test_an_unknown_label_is_refused_with_its_row() -> None:
    with pytest.raises(
        InputError, match=r"^file\.tsv: row 3 has the label 'meh', which is not among the model's labels"
    ):
        read(["negative", "1", "meh"], SST2, ["negative", "positive"])


@pytest.mark.parametrize("label", [2, "2", 0.5, True, "", "nan", "1e400"])
def test_what_is_no_label_is_refused(label: Any) -> None:
    with pytest.raises(InputError, match=r"row 1 has the label"):
        read([label], SST2, ["negative", "positive"])


def test_names_that_do_not_match_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"^--task sst2: the task's labels negative, positive differ from the model's labels bad, good"
    ):
        read([0], SST2, ["bad", "good"])


def test_a_head_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"^--task sst2: the task has 2 labels, and the model has 3 \(a, b, c\)\."):
        read([0], SST2, ["a", "b", "c"])


ALIKE = [
    ["C", "C++", "C#"],
    ["A", "A+", "A-", "a"],
    ["कम", "काम"],
    ["+", "-", "±"],
    ["é", "e", "E"],
    ["1", "-1", "+1", "1%"],
    ["so", "so!", "so?"],
    ["كتب", "كُتب"],
    ["x y", "x-y", "x_y", "xy"],
    ["🙂", "🙁"],
]


@pytest.mark.parametrize("names", ALIKE)
def test_names_that_differ_in_a_sign_or_a_vowel_mark_are_told_apart(names: list[str]) -> None:
    assert read(names, CUSTOM, names) == list(range(len(names)))
    assert read(names, CUSTOM, names[::-1]) == list(range(len(names)))[::-1]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, max_size=6, unique=True))
def test_any_distinct_names_are_distinct_labels(names: list[str]) -> None:
    assert read(names, CUSTOM, names) == list(range(len(names)))


# Signs and vowel marks of any script; Nd, digits of any script, are other labels too.
MARKS = st.characters(categories=["Mn", "Mc", "Me", "Sm", "Sc", "So", "Po", "Nd"])


@given(st.text(st.characters(categories=["Ll", "Lo"]), min_size=1), MARKS, st.integers(0, 9))
def test_a_name_without_its_sign_is_not_found(word: str, mark: str, at: int) -> None:
    spelt = [unicodedata.normalize("NFC", word[:at] + one + word[at:]).casefold() for one in ("", mark)]
    hypothesis.assume(spelt[0] != spelt[1])
    with pytest.raises(InputError, match="row 1 has the label"):
        read([word], CUSTOM, [word[:at] + mark + word[at:], "another"])


def test_a_folded_name_that_two_labels_share_stands_for_neither() -> None:
    assert read(["up side", "Up-Side"], CUSTOM, ["up side", "Up-Side"]) == [0, 1]
    with pytest.raises(InputError, match="row 1 has the label 'UP SIDE'"):
        read(["UP SIDE"], CUSTOM, ["up side", "Up-Side"])


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert read(["cafe\u0301", "CAFÉ"], CUSTOM, ["caf\u00e9", "bar"]) == [0, 0]


def test_a_label_that_stands_twice_in_the_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"the label 'a' occurs twice in a, b, a\. Give distinct names in id2label"):
        read(["a"], CUSTOM, ["a", "b", "a"])
    with pytest.raises(InputError, match="the label 'a' occurs twice"):
        check_labels(CUSTOM, ["a", "a"])


STARS = ["1 star", "2 stars", "3 stars"]


def test_ids_from_1_are_never_guessed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"row 3 has the label '3'.*read as indices from 0\. If they start from 1"):
        read(["1", "2", "3"], CUSTOM, ["bad", "fair", "good"])
    for labels in ([1, 2], ["2"], [3, 1]):  # they may be stars or positions
        with pytest.raises(InputError, match=r"row 1 has the label .*write the names of the labels instead\.$"):
            read(labels, CUSTOM, STARS)
    assert read([0, 1, 2], CUSTOM, STARS) == [0, 1, 2]  # a 0 shows that they are positions
    read([1, 1, 2, 2], CUSTOM, ["bad", "fair", "good"])
    assert "no row has the label 0" in caplog.text


def test_generic_names_that_count_from_1_are_names() -> None:
    assert read(["LABEL_1", "LABEL_2"], CUSTOM, ["LABEL_1", "LABEL_2"]) == [0, 1]
    with pytest.raises(InputError, match="row 1 has the label 1"):
        read([1, 2], CUSTOM, ["LABEL_1", "LABEL_2"])


def classes(labels: list[int], names: list[str], task: Task, model: list[str]) -> list[Any]:
    rows = Rows("file", [("t",)] * len(labels), labels, tuple(names))
    found: list[Any] = read_labels(rows, task, model).tolist()
    return found


def test_numbers_of_a_column_with_class_names_mean_these_names(caplog: pytest.LogCaptureFixture) -> None:
    assert classes([0, 1], ["Positive", "negative"], CUSTOM, ["negative", "positive"]) == [1, 0]
    assert classes([0, 1], ["positive", "negative"], SST2, ["negative", "positive"]) == [1, 0]
    assert classes([0, 2], ["1", "2", "3"], CUSTOM, ["3", "2", "1"]) == [2, 0]
    assert classes([1], ["joy", "anger"], CUSTOM, ["fear", "anger", "joy"]) == [1]  # not all are in the data
    assert not caplog.text
    assert classes([0, 1], ["neg", "pos"], CUSTOM, ["negative", "positive"]) == [0, 1]
    assert "matched by position: neg is negative, pos is positive" in caplog.text
    for names in (["neg", "positive"], ["neg", "pos", "neutral"]):
        with pytest.raises(InputError, match=r"the data's classes are neg, .* Give them the same names\."):
            classes([0, 1], names, CUSTOM, ["negative", "positive"])


@pytest.mark.parametrize("label", [["positive"], {"a": 1}, b"positive", None])
def test_a_label_that_is_no_name_is_refused(label: Any) -> None:
    with pytest.raises(InputError, match="row 1 has the label"):
        read([label], SST2, ["negative", "positive"])


def test_a_date_as_a_label_is_refused_with_what_to_write() -> None:
    """The name of the label has its text, and whether it is meant is not guessed."""
    with pytest.raises(InputError, match=r"It is a date\. Write the name of the label as text"):
        read([datetime.date(2020, 1, 2)], CUSTOM, ["2020-01-01", "2020-01-02"])
    assert read(["2020-01-02 "], CUSTOM, ["2020-01-01", "2020-01-02"]) == [1]


@pytest.mark.parametrize("form", [int, str, decimal.Decimal])
def test_hidden_labels_are_told_from_labels_that_count_from_1(form: Any, caplog: pytest.LogCaptureFixture) -> None:
    for model in (["bad", "good"], GENERIC):
        with pytest.raises(InputError, match=r"row 1 has the label .*-1.*hide the labels of a test split .* --split"):
            read([form(-1)] * 9, CUSTOM, model)
    assert "start from 1" not in caplog.text


def test_numbers_of_a_database_are_numbers() -> None:
    assert read([decimal.Decimal("1"), decimal.Decimal("0.00")], CUSTOM, ["bad", "good"]) == [1, 0]
    assert read([decimal.Decimal("1.0"), decimal.Decimal("3")], CUSTOM, ["3", "1"]) == [1, 0]
    with pytest.raises(InputError, match="row 1 has the label"):
        read([decimal.Decimal("0.5")], CUSTOM, ["bad", "good"])


@pytest.mark.parametrize("label", ["yes", True])
def test_a_name_for_a_model_without_names_is_refused_with_what_to_write(label: Any) -> None:
    with pytest.raises(InputError, match=r"Write indices from 0, or name the model's labels with id2label"):
        read([label], CUSTOM, GENERIC)


def test_swapped_columns_are_suspected() -> None:
    texts = [f"a film of {at} hours" for at in range(60)]
    swapped = [(name,) for name in ["negative", "positive"] * 30]
    for model in (["negative", "positive"], GENERIC):
        with pytest.raises(InputError, match=r"row 1 has the label 'a film of 0 hours'.*are probably swapped"):
            read_labels(Rows("file", swapped, texts), CUSTOM, model)
    with pytest.raises(InputError, match="are probably swapped"):
        read_numbers(Rows("file", [("0.5",)] * 60, texts), ["score"])


def test_texts_that_are_probably_none_are_remarked_upon(caplog: pytest.LogCaptureFixture) -> None:
    check_texts(Rows("file", [("joy",), ("fear",)] * 40, [0] * 80))
    assert "only 2 different texts in 80 rows, such as 'joy'" in caplog.text
    caplog.clear()
    check_texts(Rows("file", [("['cold', 'plot']",), ('{"a": 1}',)], [0, 1]))
    assert "every text is written as a list, an object or bytes" in caplog.text
    caplog.clear()
    check_texts(Rows("file", [("1024", "a film"), ("1.5", "a plot")], [0, 1]))
    assert "every text is a number, such as '1024'. Check that --text-column names the right column." in caplog.text
    caplog.clear()
    check_texts(Rows("file", [(f"[{at}] a film",) for at in range(79)] + [("7",)], [0] * 80))
    assert not caplog.text


def test_regression_is_read_as_numbers() -> None:
    labels = read_numbers(Rows("f", [("t",)] * 3, ["5.000", 2, -0.5]), ["score"])
    assert labels.dtype == np.float64
    assert labels.tolist() == [5.0, 2.0, -0.5]


@pytest.mark.parametrize("label", ["high", "3,5", "nan", float("inf"), None, [1], True, "1_000"])
def test_regression_on_what_is_no_number_is_refused_with_its_row(label: Any) -> None:
    with pytest.raises(
        InputError, match=r"^file\.tsv: row 2 has the label .*\. Write a finite number, such as 3\.5\.$"
    ):
        read_numbers(Rows("file.tsv", [("t",)] * 2, [1, label]), ["score"])


def test_f1_is_of_two_classes() -> None:
    """scikit-learn raises for more: F1 of class 1 is not defined there."""
    task = Task(name="own", text_columns=("t",), label_column="l", metrics=("f1",), primary="f1")
    check_labels(task, ["negative", "positive"])
    with pytest.raises(InputError, match=r"^--task own: its metric f1 needs two classes, and the model has 3\."):
        check_labels(task, ["bad", "fair", "good"])


def test_a_boolean_is_not_a_position_and_the_advice_is_of_booleans() -> None:
    with pytest.raises(InputError, match=r"has the label True, .*It is a boolean\. Write the names of the labels"):
        read([True, False], CUSTOM, ["negative", "positive"])
    assert read([True, False], CUSTOM, ["False", "True"]) == [1, 0]


def test_f1_is_of_the_tasks_class_1_whatever_the_models_order() -> None:
    from sklearn.metrics import f1_score

    task = Task(name="mrpc", text_columns=("t",), label_column="l", labels=("not_equivalent", "equivalent"))
    truth = np.array([1, 1, 1, 0, 0])
    logits = np.array([[0, 1], [0, 1], [1, 0], [0, 1], [1, 0]], np.float32)
    expected = f1_score(truth, logits.argmax(axis=1))
    for names, columns in ((["not_equivalent", "equivalent"], [0, 1]), (["equivalent", "not_equivalent"], [1, 0])):
        read_as = np.array(read(truth.tolist(), task, names))
        references, ordered = in_task_order(read_as, logits[:, columns], task, names)
        assert f1_score(references, ordered.argmax(axis=1)) == expected
