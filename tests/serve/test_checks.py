"""Requests that do not fit the model are refused with Triton's texts and status, which were recorded."""

import numpy as np
import pytest

from toolchain.serve.checks import Checks, check_model, check_statistics
from toolchain.serve.limits import Limits
from toolchain.serve.protocol import InferRequest, Reason, RefusedError, Tensor

PADS = {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0}
SIZES = {"input_ids": 100, "attention_mask": 2, "token_type_ids": 2}
LIMITS = Limits(max_batch=64, max_characters=10)
GIVES = {"LABEL": None, "SCORE": 2, "LOGITS": 2}
ONE = Checks("sentiment", 1, {name: SIZES[name] for name in ("input_ids", "attention_mask")}, 8, PADS, LIMITS, GIVES)
PAIR = Checks("pairs", 2, SIZES, 8, PADS, LIMITS, GIVES)


def text(values=(b"hi",), name="TEXT", *, shape=None, datatype="BYTES"):
    column = np.empty(len(values), object)
    column[:] = values
    return Tensor(name, datatype, column.reshape(shape or (len(values), 1)))


def ids(values, name="input_ids", datatype="INT64"):
    return Tensor(
        name, datatype, np.array(values, {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32}[datatype])
    )


def mask(values):
    return ids(values, "attention_mask")


def request(*inputs, **choices):
    return InferRequest("sentiment", inputs, **choices)


NOTE = "NOTE: Setting a non-zero max_batch_size"
REFUSED = {
    "none": (
        (),
        "expected 1 inputs but got 0 inputs for model 'sentiment'. Got input(s) [], but missing required "
        "input(s) ['TEXT']. Please provide all required input(s).",
    ),
    "wrong name": ((text(name="TXT"),), "unexpected inference input 'TXT' for model 'sentiment'"),
    "extra": ((text(), text(name="X")), "expected 1 inputs but got 2 inputs"),
    "both kinds": ((text(), ids([[1]])), "expected 1 inputs but got 2 inputs"),
    "twice": ((text(), text()), "input 'TEXT' already exists in request"),
    "wrong type": (
        (ids([[1]], "TEXT", "INT32"),),
        "inference input 'TEXT' data-type is 'INT32', but model 'sentiment' expects 'BYTES'",
    ),
    "wrong rank": (
        (text(shape=(1,)),),
        f"unexpected shape for input 'TEXT' for model 'sentiment'. Expected [-1,1], got [1]. {NOTE}",
    ),
    "wrong size": ((text((b"a", b"b"), shape=(1, 2)),), "Expected [-1,1], got [1,2]. "),
    "no rows": ((text(()),), "expected 1 string elements for inference input 'TEXT' for model 'sentiment', got 0"),
    "many rows": ((text([b"a"] * 65),), "inference request batch-size must be <= 64 for 'sentiment'"),
    "no UTF-8": ((text((b"\xff\xfe",)),), "TEXT is not UTF-8"),
    "one missing": (
        (ids([[1, 2, 3]]),),
        "expected 2 inputs but got 1 inputs for model 'sentiment'. Got input(s) ['input_ids'], but missing "
        "required input(s) ['attention_mask']",
    ),
    "floats": ((ids([[1.0]], datatype="FP32"), mask([[1]])), "data-type is 'FP32', but model"),
    "rows differ": ((ids([[1, 2, 3]]), mask([[1, 1, 1]] * 2)), "batch size does not match other inputs for"),
    "lengths differ": ((ids([[1, 2, 3]]), mask([[1, 1, 1, 1]])), "Expected [1,3], got [1,4]"),
    "id too large": ((ids([[1, 100]]), mask([[1, 1]])), "has the value 100, which is outside the range [0,99]"),
    "id below zero": ((ids([[-1]]), mask([[1]])), "has the value -1, which is outside the range"),
    "mask of twos": ((ids([[1]]), mask([[2]])), "has the value 2, which is outside the range [0,1]"),
    "no token": ((ids([[1, 2]] * 2), mask([[1, 1], [0, 0]])), "one or more 1s followed only by 0s"),
    "a hole": ((ids([[1, 2, 3]]), mask([[1, 0, 1]])), "one or more 1s followed only by 0s"),
    "too long": ((ids([[1] * 9]), mask([[1] * 9])), "has 9 tokens per row, and model 'sentiment' takes up to 8"),
    "no length": ((ids(np.ones((1, 0))), mask(np.ones((1, 0)))), "one or more 1s followed only by 0s"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_inputs_that_do_not_fit_the_model_are_invalid(case):
    inputs, words = REFUSED[case]
    with pytest.raises(RefusedError) as caught:
        ONE.rows(request(*inputs))
    assert caught.value.reason == Reason.INVALID
    assert words in str(caught.value)


def test_a_refusal_begins_with_the_id_of_the_request():
    for name, shown in (("a1", "a1"), ("", "<id_unknown>"), ("x" * 500, "x" * 64 + "...")):
        with pytest.raises(RefusedError, match=rf"^\[request id: {shown}\] expected"):
            ONE.rows(request(id=name))


def test_the_length_of_a_text_counts_in_characters_not_in_bytes():
    assert ONE.rows(request(text(("😀" * 10).encode().split()))) == [("😀" * 10,)]
    with pytest.raises(RefusedError, match="11 characters exceeds the maximum allowed value of 10") as caught:
        ONE.rows(request(text((b"short", b"x" * 11))))
    assert caught.value.reason == Reason.TOO_LARGE


def test_texts_and_pairs_become_rows():
    assert ONE.rows(request(text((b"a", "ä€😀".encode())))) == [("a",), ("ä€😀",)]
    assert PAIR.rows(request(text((b"c", b"d"), "TEXT_PAIR"), text((b"a", b"b")))) == [("a", "c"), ("b", "d")]


def test_token_ids_become_rows_without_padding():
    rows = ONE.rows(request(ids([[1, 2, 3], [4, 5, 0]], datatype="INT32"), mask([[1, 1, 1], [1, 1, 0]])))
    assert rows.columns == {"input_ids": [[1, 2, 3], [4, 5]], "attention_mask": [[1, 1, 1], [1, 1]]}
    types = ids([[0, 1]], "token_type_ids")
    assert PAIR.rows(request(ids([[1, 2]]), mask([[1, 1]]), types)).columns["token_type_ids"] == [[0, 1]]


def test_outputs_are_the_requested_ones_or_all():
    assert ONE.outputs(request()) == ("LABEL", "SCORE", "LOGITS")
    assert ONE.outputs(request(outputs=("LOGITS", "LABEL", "LOGITS"))) == ("LOGITS", "LABEL")
    with pytest.raises(RefusedError, match="unexpected inference output 'zzz' for model 'sentiment'"):
        ONE.outputs(request(outputs=("zzz",)))
    assert ONE.outputs(request(outputs=("SCORE",), classes={"SCORE": 1})) == ("SCORE",)
    with pytest.raises(RefusedError, match="class result not available for output 'LABEL' due to unsupported type"):
        ONE.outputs(request(outputs=("LABEL",), classes={"LABEL": 1}))


@pytest.mark.parametrize(
    ("model", "version", "reason", "words"),
    [
        ("nope", "", Reason.NOT_FOUND, "Request for unknown model: 'nope' is not found"),
        ("sentiment", "9", Reason.NOT_FOUND, "Request for unknown model: 'sentiment' version 9 is not found"),
        ("sentiment", "abc", Reason.INVALID, "failed to get model version from specified version string 'abc'"),
    ],
)
def test_an_unknown_model_is_not_found(model, version, reason, words):
    check_model("sentiment", "sentiment", "")
    check_model("sentiment", "sentiment", "1")
    with pytest.raises(RefusedError) as caught:
        check_model("sentiment", model, version)
    assert (caught.value.reason, words in str(caught.value)) == (reason, True)


@pytest.mark.parametrize(
    ("model", "version", "words"),
    [
        ("nope", "", "^requested model 'nope' is not available"),
        ("nope", "9", "requested model 'nope' is not available"),
        ("sentiment", "9", "^requested model version is not available for model 'sentiment'"),
        ("sentiment", "abc", "specified version string 'abc'"),
    ],
)
def test_statistics_of_an_unknown_model_are_invalid(model, version, words):
    check_statistics("sentiment", "sentiment", "1")
    with pytest.raises(RefusedError, match=words) as caught:
        check_statistics("sentiment", model, version)
    assert caught.value.reason == Reason.INVALID


@pytest.mark.parametrize("texts", [[("x" * 11,)], [("a",), ("b", "x" * 11)]])
def test_a_text_that_is_too_long_is_refused_wherever_it_is(texts):
    ONE.check_lengths([("x" * 10,)] * 2)
    with pytest.raises(RefusedError, match="a text of 11 characters") as refused:
        ONE.check_lengths(texts)
    assert refused.value.reason.http == 413
