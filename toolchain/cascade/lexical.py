"""Fits a lexical first stage: logistic regression on the TF-IDF of tokens and of pairs of neighbouring tokens."""

import numpy as np
from numpy.typing import NDArray

from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.metrics import Values
from toolchain.errors import InputError
from toolchain.runtimes.lexical import Lexical
from toolchain.runtimes.tfidf import features

# Least number of rows in which a feature must occur. A feature of a single row says nothing about other rows.
LEAST_ROWS = 2

# Inverse strength of the regularisation (scikit-learn's C). It is ten times the default, as is usual for TF-IDF, whose
# values are below 1.
INVERSE_REGULARISATION = 10.0

MAX_ITERATIONS = 1000


def fit(tokens: Tokens, references: Values, *, vocabulary: int, labels: tuple[str, ...]) -> Lexical:
    """Return a lexical model that is fitted to tokenized rows. `references` are the rows' labels, as indices.

    Raises:
        InputError: no row has one of the labels, or no feature occurs in two rows.
    """
    if len(absent := sorted({*range(len(labels))} - {*references.tolist()})):
        raise InputError(
            f"--lexical: no train row has the label {labels[absent[0]]}. Give train rows of every label with --data."
        )
    from scipy.sparse import coo_array
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression

    owners, numbers = _features(tokens, vocabulary)
    found, places = np.unique(numbers, return_inverse=True)
    counts = coo_array((np.ones(len(owners)), (owners, places)), (len(tokens), len(found))).tocsr()
    used = np.flatnonzero(np.bincount(counts.indices, minlength=len(found)) >= LEAST_ROWS)
    if not len(used):
        raise InputError("--lexical: no token occurs in two train rows. Give more train rows with --data.")
    transformer = TfidfTransformer(sublinear_tf=True)
    values = transformer.fit_transform(counts[:, used])
    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAX_ITERATIONS)
    model.fit(values, references)
    weights, bias = _of_classes(model.coef_, model.intercept_)
    return Lexical(
        found[used],
        transformer.idf_.astype(np.float32),
        weights.astype(np.float32),
        bias.astype(np.float32),
        vocabulary,
    )


def _features(tokens: Tokens, vocabulary: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return two arrays with one entry for each feature in each row: the index of the row, and the feature's number.

    Rows of equal length form a batch, so that none is padded.
    """
    owners, numbers = [], []
    order = np.argsort(tokens.lengths, kind="stable")
    ends = np.flatnonzero(np.diff(tokens.lengths[order])) + 1
    for rows in np.split(order, ends):
        batch = tokens.batch(rows)
        own, keys = features(batch["input_ids"], batch["attention_mask"], vocabulary)
        owners.append(rows[own])
        numbers.append(keys)
    return np.concatenate(owners), np.concatenate(numbers)


def _of_classes(
    coefficients: NDArray[np.float64], intercepts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scikit-learn's coefficients as weights [features, classes] and bias [classes].

    For two classes, scikit-learn has only those of the second class. They are divided by two, and negated for the
    first class.
    """
    if len(coefficients) == 1:
        coefficients, intercepts = (np.concatenate([-one / 2, one / 2]) for one in (coefficients, intercepts))
    return coefficients.T, intercepts
