"""The fit of a lexical first stage: TF-IDF of tokens and pairs of neighbours, and logistic regression."""

import numpy as np
from numpy.typing import NDArray

from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.metrics import Values
from toolchain.errors import InputError
from toolchain.runtimes.lexical import Lexical
from toolchain.runtimes.tfidf import features

# A feature of one row alone says nothing about others.
LEAST_ROWS = 2

# Inverse strength of the regularisation: the default of scikit-learn times ten, which is usual for TF-IDF, whose values
# are below 1.
INVERSE_REGULARISATION = 10.0

MAX_ITERATIONS = 1000


def fit(tokens: Tokens, references: Values, *, vocabulary: int, labels: tuple[str, ...]) -> Lexical:
    """Return the model that is fitted to rows and their labels, indices of `labels`.

    Raises:
        InputError: a label is on no row, or no feature is in two rows.
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
        raise InputError("--lexical: no token is in two train rows. Give more train rows with --data.")
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
    """Return the row and the number of each feature of all rows; batches keep the padding small."""
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
    """Return weights [features, classes] and bias [classes]; of two classes scikit-learn keeps the second alone."""
    if len(coefficients) == 1:
        coefficients, intercepts = (np.concatenate([-one / 2, one / 2]) for one in (coefficients, intercepts))
    return coefficients.T, intercepts
