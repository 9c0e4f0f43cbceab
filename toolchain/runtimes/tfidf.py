"""TF-IDF features of tokens and bigrams (two adjacent tokens), and a linear model on them, computed by numpy alone.

`toolchain ship triton` copies this file into the Triton model repository of a cascade. It needs numpy and Python 3.8 or
later.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def linear(ids: Any, mask: Any, keys: Any, idf: Any, weights: Any, bias: Any, vocabulary: int) -> Any:
    """Return the logits of a linear model on the TF-IDF features of rows, float32 [rows, classes].

    Args:
        ids: token ids, integers [rows, length].
        mask: 1 where a position has a token, 0 where it is padding, [rows, length].
        keys: keys of the features that the model has weights for (see `features`), int64 [features], ascending.
        idf: inverse document frequencies of these features, float32 [features].
        weights: float32 [features, classes].
        bias: float32 [classes].
        vocabulary: number of token ids.
    """
    rows, count = len(ids), len(keys)
    owners, numbers = features(ids, mask, vocabulary)
    places = np.searchsorted(keys, numbers)
    known = keys[np.minimum(places, count - 1)] == numbers
    found, times = np.unique(owners[known] * count + places[known], return_counts=True)
    owner, feature = np.divmod(found, count)
    values = (1 + np.log(times)) * idf[feature]
    norm = np.sqrt(np.bincount(owner, values**2, rows))
    sums = [np.bincount(owner, values * column[feature], rows) for column in weights.T]
    return np.asarray(np.stack(sums, axis=1) / np.maximum(norm, 1e-12)[:, None] + bias, np.float32)


def features(ids: Any, mask: Any, vocabulary: int) -> Any:
    """Return every token and bigram of the rows: the index of its row, and its key, both int64 [occurrences].

    The key of a token is its id. The key of a bigram is (first id + 1) * vocabulary + second id. The order is not
    defined.
    """
    ids, real = ids.astype(np.int64), mask.astype(bool)
    both = real[:, :-1] & real[:, 1:]
    pairs = (ids[:, :-1] + 1) * vocabulary + ids[:, 1:]
    owners = np.concatenate([np.nonzero(real)[0], np.nonzero(both)[0]])
    return owners, np.concatenate([ids[real], pairs[both]])
