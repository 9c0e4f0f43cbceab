"""A classifier gives what a transformers pipeline gives: labels, scores, and the shape of the answer."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from tests.conftest import HEADS
from tests.head_of import head_of
from toolchain.bundle.build import build
from toolchain.errors import InputError, UsageError
from toolchain.evaluation import classifier as module
from toolchain.evaluation.classifier import Classifier
from toolchain.evaluation.target import find_target
from toolchain.recipe import Recipe

TEXTS = ["a good film", "a bad film , and too long", "", "the cat never liked the plot of this movie", "bad"] * 3
LABELS = HEADS["pairs"][1]["labels"]


def opened(bundle, **changes):
    return Classifier(find_target({"backend": "ort", "device": "cpu", **changes}, bundle))


def pipeline_of(checkpoint):
    import transformers

    return transformers.pipeline("text-classification", model=str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def bundle(begun, tmp_path_factory):
    return begun("fp32", tmp_path_factory.mktemp("classifier") / "b")


@pytest.fixture(scope="module")
def three(exported_head, tmp_path_factory):
    """A checkpoint for pairs with three classes, and its bundle."""
    target = tmp_path_factory.mktemp("pairs") / "b"
    checkpoint = exported_head("pairs", target)
    values = {"model": str(checkpoint), "precision": "fp32", "output": str(target)}
    build(Recipe.make(values | {"task": "custom", "text_column": "one,other", "label_column": "label"}))
    return checkpoint, target


@pytest.fixture(scope="module")
def classifier(bundle):
    with opened(bundle) as found:
        yield found


@pytest.fixture(scope="module")
def theirs(tiny_distilbert):
    return pipeline_of(tiny_distilbert)


def assert_same(found, expected):
    """Compare two answers of any shape: the labels are equal, the scores within 1e-4."""
    if isinstance(expected, list):
        assert isinstance(found, list)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
        return
    assert found["label"] == expected["label"]
    assert found["score"] == pytest.approx(expected["score"], abs=1e-4)


@pytest.mark.parametrize("rows", [TEXTS, TEXTS[:1], TEXTS[0]], ids=["several", "a list of one", "one"])
@pytest.mark.parametrize("choice", [{}, {"top_k": 1}, {"top_k": None}, {"top_k": 5}], ids=str)
def test_texts_are_answered_as_by_a_transformers_pipeline(classifier, theirs, rows, choice):
    assert_same(classifier(rows, **choice), theirs(rows, **choice))


@pytest.mark.parametrize("choice", [{}, {"top_k": 2}], ids=str)
def test_pairs_are_answered_as_by_a_transformers_pipeline(three, choice):
    checkpoint, bundle = three
    pairs = [("a good film", "a fine movie"), ("the meal was cold", "a cat")]
    keyed = [{"text": one, "text_pair": other} for one, other in pairs]
    expected = pipeline_of(checkpoint)(keyed, **choice)
    with opened(bundle) as classifier:
        assert_same(classifier(pairs, **choice), expected)
        assert_same(classifier(keyed, **choice), expected)
        assert_same(classifier(pairs[0], **choice), expected[0] if choice else expected[:1])


def test_a_regression_gives_its_value_without_a_label(begun_regression, tmp_path):
    expected = pipeline_of(begun_regression(tmp_path / "b")["model"])(TEXTS)
    with opened(tmp_path / "b") as classifier:
        found = classifier(TEXTS)
        assert {one["label"] for one in found} == {None}
        np.testing.assert_allclose([one["score"] for one in found], [one["score"] for one in expected], atol=1e-4)
        assert classifier(TEXTS[:1], top_k=3) == [found[:1]]


def test_torch_answers_from_the_checkpoint(bundle, classifier):
    with opened(bundle, backend="torch") as torch:
        assert_same(torch(TEXTS), classifier(TEXTS))


def test_any_number_of_rows_in_their_order(classifier, tiny):
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(tiny.WORDS, generator.integers(1, 30))) for _ in range(9000)]
    found = classifier(text for text in texts)
    assert len(found) == 9000
    for row in (0, 4095, 4096, 8999):
        assert_same(found[row : row + 1], classifier(texts[row]))
    assert classifier([]) == []
    assert classifier([], top_k=2) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("a", "b"), r"row 1, \('a', 'b'\): the task takes a text"),
        (["a", 5], "row 2, 5: "),
        (["a", {"text": "a", "text_pair": "b"}], "row 2, "),
        ([["a"]], "row 1, "),
        ([{"label": "a"}], "row 1, "),
    ],
)
def test_a_row_of_the_wrong_kind_is_named(classifier, rows, message):
    with pytest.raises(UsageError, match=message):
        classifier(rows)
    assert len(classifier("a")) == 1


def test_top_k_below_one_is_refused(classifier):
    with pytest.raises(UsageError, match="top_k=0: too small"):
        classifier("a", top_k=0)


def test_several_threads_get_their_own_answers(classifier):
    expected = classifier(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        for found, text in zip(pool.map(classifier, TEXTS * 4), TEXTS * 4, strict=True):
            assert_same(found, [expected[TEXTS.index(text)]])


def test_the_runtime_is_opened_run_and_closed_by_one_thread(bundle, monkeypatch):
    seen = []

    @contextmanager
    def open_runtime(backend, model, **choices):
        seen.append(threading.get_ident())

        def infer(batch):
            seen.append(threading.get_ident())
            return np.zeros((len(batch["input_ids"]), 2), np.float32)

        yield infer
        seen.append(threading.get_ident())

    monkeypatch.setattr(module, "open_runtime", open_runtime)
    with opened(bundle) as found, ThreadPoolExecutor(2) as pool:
        list(pool.map(found, TEXTS))
    assert len(seen) == len(TEXTS) + 2
    assert len(set(seen)) == 1
    assert threading.get_ident() not in seen


def test_a_closed_classifier_says_so(bundle):
    found = opened(bundle)
    assert repr(found).startswith("<Classifier of ")
    found.close()
    found.close()
    with pytest.raises(InputError, match="is closed"):
        found("a")


def test_scores_are_a_softmax_that_does_not_overflow():
    logits = np.array([[1000.0, 999.0], [-1000.0, 0.0]], np.float32)
    np.testing.assert_allclose(head_of("a", "b").scores(logits)[0], [np.e / (1 + np.e), 1 / (1 + np.e)], rtol=1e-6)
    assert head_of("a", "b").scores(logits)[1, 1] == 1


def test_a_row_that_is_longer_than_the_model_reads_is_marked(classifier):
    limit = classifier.target.resolved.max_length - 2  # beside the two special tokens
    at_limit, beyond = " ".join(["good"] * limit), " ".join(["good"] * (limit + 1))
    found = classifier([at_limit, beyond, "bad"])
    assert [one.get("truncated") for one in found] == [None, True, None]
    assert found[1]["score"] == pytest.approx(found[0]["score"], abs=1e-6)
    assert [one.get("truncated") for one in classifier(beyond, top_k=None)] == [True, True]
    assert classifier.run([beyond, "bad"])[1].tolist() == [True, False]
