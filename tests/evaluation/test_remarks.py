"""What is said of a result before its figures."""

import pytest

from toolchain.evaluation.remarks import remarks


def result(*, n=500, right=0.33, share=0.31, cut=0):
    frequent = None if share is None else {"share": share, "accuracy": right}
    return {"n": n, "tokens": {"truncated_rows": cut}, "max_length": 128, "most_frequent": frequent}


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({}, True),
        ({"right": 0.40}, False),  # 500 rows: Wilson's low end is 0.358
        ({"right": 0.35}, True),  # its low end is 0.3095
        ({"right": 0.352}, False),  # 0.3114
        ({"right": 0.1}, True),
        ({"right": 0.5, "share": 0.5, "n": 16}, False),  # too few rows to say it
        ({"right": 1.0, "share": 1.0}, True),
        ({"share": None}, False),  # a regression
    ],
)
def test_a_model_no_better_than_the_most_frequent_label_is_remarked_upon(choices, said):
    found = remarks(result(**choices))
    assert [("always predicting the most frequent label" in line) for line in found] == [True] * said


def test_rows_that_were_cut_are_counted():
    (line,) = remarks(result(right=0.9, cut=31))
    assert line == "31 of 500 rows are longer than --max-length 128, and the model does not see their ends."


def test_results_of_earlier_versions_have_no_remarks():
    assert not remarks({"n": 500, "tokens": {}})


def test_rows_that_the_model_learnt_from_are_counted():
    (line,) = remarks({"n": 500, "tokens": {}, "learnt_rows": 40})
    assert line.startswith("`toolchain shrink` or `toolchain heal` used 40 of these 500 rows")


def test_times_of_fp8_on_a_cpu_are_remarked_upon():
    on_cpu = {"n": 500, "tokens": {}, "precision": "fp8", "device": "cpu"}
    assert [line.startswith("a CPU computes FP8 in a wider float type") for line in remarks(on_cpu)] == [True]
    assert remarks({**on_cpu, "device": "cuda:0"}) == remarks({**on_cpu, "precision": "int8"}) == []
