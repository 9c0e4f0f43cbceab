"""Labels, tensors of responses, and scores against scipy's softmax."""

import numpy as np
import pytest
from scipy.special import softmax

from tests.head_of import head_of
from toolchain.serve.outputs import classifications, tensors

LOGITS = np.array([[1.0, -2.0, 0.5], [-300.0, 400.0, 399.0], [0.0, 0.0, 0.0]], np.float32)
HEAD = head_of("bad", "schön", "fine")
TWO, NUMBER = head_of("bad", "schön"), head_of("score")


def test_scores_are_the_softmax():
    assert HEAD.scores(LOGITS).dtype == np.float32
    np.testing.assert_array_equal(HEAD.scores(LOGITS), softmax(LOGITS.astype(np.float64), axis=1).astype(np.float32))


def test_outputs_have_the_shapes_and_types_of_the_protocol():
    label, score, logits = tensors(LOGITS, HEAD, ("LABEL", "SCORE", "LOGITS"), {})
    assert label.array.tolist() == [[b"bad"], ["schön".encode()], [b"bad"]]
    assert [(one.name, one.datatype, one.array.shape) for one in (label, score, logits)] == [
        ("LABEL", "BYTES", (3, 1)),
        ("SCORE", "FP32", (3, 3)),
        ("LOGITS", "FP32", (3, 3)),
    ]
    assert [one.name for one in tensors(LOGITS, HEAD, ("LOGITS",), {})] == ["LOGITS"]


def test_best_classes_have_tritons_form():
    array = np.array([[-0.0871, -0.1621], [0.5, 2.0]], np.float32)
    best, label = tensors(array, TWO, ("LOGITS", "LABEL"), {"LOGITS": 1})
    assert (best.name, best.datatype, best.array.tolist()) == ("LOGITS", "BYTES", [[b"-0.087100:0"], [b"2.000000:1"]])
    assert label.array.tolist() == [[b"bad"], [b"sch\xc3\xb6n"]]
    (more,) = tensors(array, TWO, ("LOGITS",), {"LOGITS": 9})
    assert more.array.tolist() == [[b"-0.087100:0", b"-0.162100:1"], [b"2.000000:1", b"0.500000:0"]]


def test_a_regression_returns_its_number():
    value = np.array([[3.1415927], [-1e-9]], np.float32)
    assert NUMBER.texts(value) == ["3.1415927", "-1e-09"]
    assert NUMBER.scores(value) is value
    assert classifications(value[:1], NUMBER, np.array([True])) == [
        {"label": None, "score": float(value[0, 0]), "truncated": True}
    ]


def test_classifications_have_names_and_scores():
    (row,) = classifications(LOGITS[:1], HEAD)
    assert row["label"] == "bad"
    assert row["score"] == row["scores"]["bad"] == max(row["scores"].values())
    assert sum(row["scores"].values()) == pytest.approx(1)
