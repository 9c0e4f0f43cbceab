"""The lexical model, the cheapest first stage of a cascade: weights of tokens and of pairs of neighbours.

It computes what scikit-learn's TF-IDF and logistic regression do (toolchain/cascade/lexical.py fits it), with numpy
alone (tfidf.py), from the token ids of the second stage. So both stages read the same tokens, cut at the same length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch, Logits
from toolchain.errors import InputError
from toolchain.runtimes.tfidf import linear

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Lexical:
    """A linear model of TF-IDF features.

    A feature is a token or two neighbours, with a number by `tfidf.features`. `keys` are those of the model, int64
    [features], in rising order; `idf` are their inverse document frequencies, float32 [features]; `weights` float32
    [features, classes] and `bias` float32 [classes]. `vocabulary` is the number of token ids.
    """

    keys: Numbers
    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    vocabulary: int

    def __call__(self, batch: Batch) -> Logits:
        """Return the logits of a batch, float32 [batch, classes]."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        return np.asarray(linear(ids, mask, self.keys, self.idf, self.weights, self.bias, self.vocabulary))

    def to_bytes(self) -> bytes:
        """Return the model in the format of safetensors."""
        from safetensors.numpy import save

        arrays = {"keys": self.keys, "idf": self.idf, "weights": self.weights, "bias": self.bias}
        return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_lexical(data: bytes, vocabulary: int, classes: int, *, where: str) -> Lexical:
    """Return the model that `to_bytes` wrote.

    Raises:
        InputError: the file `where` has other arrays, arrays that do not fit, or numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        found = Lexical(**arrays, vocabulary=vocabulary)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: not a lexical model. Make the cascade again.") from error
    count = found.keys.size
    shapes = {"keys": (count,), "idf": (count,), "weights": (count, classes), "bias": (classes,)}
    if not count or any(arrays[name].shape != shape for name, shape in shapes.items()):
        raise InputError(f"{where}: its arrays do not fit the {classes} classes. Make the cascade again.")
    if any(array.dtype != (np.int64 if name == "keys" else np.float32) for name, array in arrays.items()):
        raise InputError(f"{where}: its arrays have other types. Make the cascade again.")
    if (np.diff(found.keys) <= 0).any() or not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(
            f"{where}: its features are not in rising order, or a number is not finite. Make the cascade again."
        )
    return found
