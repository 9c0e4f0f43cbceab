"""The lexical model, the cheapest first stage of a cascade: logistic regression on TF-IDF of tokens and bigrams.

toolchain/cascade/lexical.py fits it with scikit-learn; here numpy alone computes it (tfidf.py). Its input is the token
ids of the second stage, so both stages read the same tokens, truncated to the same length.
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

    A feature is a token or a bigram (two adjacent tokens); `tfidf.features` defines its key. `keys` are the keys of the
    model's features, int64 [features], in ascending order; `idf` are their inverse document frequencies, float32
    [features]; `weights` are float32 [features, classes] and `bias` is float32 [classes]. `vocabulary` is the number of
    token ids.
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
        """Return the arrays of the model as the bytes of a safetensors file; `vocabulary` is not in it."""
        from safetensors.numpy import save

        arrays = {"keys": self.keys, "idf": self.idf, "weights": self.weights, "bias": self.bias}
        return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read_lexical(data: bytes, vocabulary: int, classes: int, *, where: str) -> Lexical:
    """Return the lexical model in the bytes of a file that `to_bytes` wrote. Messages call the file `where`.

    Raises:
        InputError: arrays are missing, have the wrong shape, dtype or order, or a number is not finite.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        found = Lexical(**arrays, vocabulary=vocabulary)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: this is not a lexical model. Run `toolchain cascade` again.") from error
    count = found.keys.size
    shapes = {"keys": (count,), "idf": (count,), "weights": (count, classes), "bias": (classes,)}
    if not count or any(arrays[name].shape != shape for name, shape in shapes.items()):
        raise InputError(f"{where}: its arrays do not fit {classes} classes. Run `toolchain cascade` again.")
    if any(array.dtype != (np.int64 if name == "keys" else np.float32) for name, array in arrays.items()):
        raise InputError(f"{where}: its arrays have wrong dtypes. Run `toolchain cascade` again.")
    if (np.diff(found.keys) <= 0).any() or not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(
            f"{where}: its keys are not in ascending order, or a number is not finite. Run `toolchain cascade` again."
        )
    return found
