"""The lexical stage, compared with scikit-learn on the same features."""

import itertools

import numpy as np
import pytest
from safetensors.numpy import save
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from toolchain.cascade.lexical import INVERSE_REGULARISATION, fit
from toolchain.checkpoint.tokenize import Tokens
from toolchain.errors import InputError
from toolchain.runtimes.lexical import read_lexical

VOCABULARY = 40


def drawn(rows, classes, seed=0):
    """Return rows of random ids whose middle depends on the label, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(rows) % classes)
    lengths = rng.integers(1, 12, rows)
    ids = [
        rng.integers(2, VOCABULARY, length).tolist() + [int(2 + label)] * int(rng.integers(0, 3))
        for label, length in zip(labels, lengths, strict=True)
    ]
    return ids, labels


def tokens(ids):
    ones = [[1] * len(row) for row in ids]
    return Tokens({"input_ids": ids, "attention_mask": ones}, {"input_ids": 0, "attention_mask": 0})


def words(row):
    return [f"{one}" for one in row] + [f"{one} {two}" for one, two in itertools.pairwise(row)]


def batch(ids):
    return tokens(ids).batch(np.arange(len(ids)))


@pytest.mark.parametrize("classes", [2, 3])
def test_logits_are_those_of_scikit_learn(classes):
    ids, labels = drawn(300, classes)
    unseen = [*drawn(60, classes, seed=1)[0], [1]]  # the last row has no known token
    model = fit(tokens(ids), labels, vocabulary=VOCABULARY, labels=("a", "b", "c")[:classes])
    reference = make_pipeline(
        TfidfVectorizer(analyzer=words, min_df=2, sublinear_tf=True),
        LogisticRegression(C=INVERSE_REGULARISATION, max_iter=1000),
    ).fit(ids, labels)
    expected = reference.decision_function(unseen)
    found = model(batch(unseen))
    assert (found.dtype, found.shape) == (np.float32, (len(unseen), classes))
    np.testing.assert_allclose(found[:, 1] - found[:, 0] if classes == 2 else found, expected, atol=5e-3)
    np.testing.assert_array_equal(found.argmax(axis=1), reference.predict(unseen))
    alone = np.concatenate([model(batch([row])) for row in unseen])
    np.testing.assert_array_equal(found, alone)  # whatever a row is batched with


def test_a_model_is_read_as_it_was_written_and_a_damaged_one_is_refused():
    ids, labels = drawn(50, 2)
    model = fit(tokens(ids), labels, vocabulary=VOCABULARY, labels=("a", "b"))
    read = read_lexical(model.to_bytes(), VOCABULARY, 2, where="lexical.safetensors")
    np.testing.assert_array_equal(read(batch(ids)), model(batch(ids)))
    arrays = {"keys": model.keys, "idf": model.idf, "weights": model.weights, "bias": model.bias}
    hostile = [
        {"keys": model.keys[0]},
        {"keys": model.keys[::-1]},
        {"keys": model.keys.astype(np.float64)},
        {"idf": model.idf * np.nan},
        {"bias": model.bias + np.float32(np.inf)},
    ]
    changed = [save({name: np.array(one) for name, one in (arrays | change).items()}) for change in hostile]
    for data, classes in (
        *((one, 2) for one in changed),
        (model.to_bytes()[:-8], 2),
        (b"", 2),
        (model.to_bytes(), 3),
    ):
        with pytest.raises(InputError, match=r"lexical\.safetensors: .*Run `toolchain cascade` again|Make it again"):
            read_lexical(data, VOCABULARY, classes, where="lexical.safetensors")


def test_a_label_without_a_row_and_rows_without_a_common_token_are_refused():
    ids, labels = drawn(20, 2)
    with pytest.raises(InputError, match="no train row has the label c"):
        fit(tokens(ids), labels, vocabulary=VOCABULARY, labels=("a", "b", "c"))
    with pytest.raises(InputError, match="no token occurs in two train rows"):
        fit(tokens([[1], [2]]), np.array([0, 1]), vocabulary=VOCABULARY, labels=("a", "b"))
