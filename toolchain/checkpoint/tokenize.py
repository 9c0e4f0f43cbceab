"""Texts to token ids, and token ids to batches without waste."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from toolchain.checkpoint.ragged import Indices, Ragged
from toolchain.data.rows import Text
from toolchain.errors import UsageError
from toolchain.tensors import TEXT_INPUTS, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Columns = Mapping[str, Sequence[Sequence[int]]]
"""Input name -> rows of ints."""


class Tokens:
    """Token ids of rows, unpadded.

    `columns`: input name -> rows, each a list of ints when looked at, as long as that row's in every column.
    """

    def __init__(self, columns: Columns, pad_values: dict[str, int]) -> None:
        self.columns = {
            name: column if isinstance(column, Ragged) else Ragged.of(column) for name, column in columns.items()
        }
        self.pad_values = pad_values

    @property
    def lengths(self) -> Indices:
        """Real tokens of each row, int64 [n]."""
        return self.columns["input_ids"].lengths

    def __len__(self) -> int:
        return len(self.columns["input_ids"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        return (self.columns, self.pad_values) == (other.columns, other.pad_values)

    def take(self, indices: Indices) -> "Tokens":
        """Return the rows at `indices`, in that order."""
        return Tokens({name: column.take(indices) for name, column in self.columns.items()}, self.pad_values)

    def batch(self, indices: Indices, *, length: int | None = None) -> Batch:
        """Return the rows at `indices`, padded to the longest or to `length`: int32 [batch, length].

        Raises:
            ValueError: a row is longer than `length`.
        """
        first, lengths = self.columns["input_ids"].starts[:-1][indices], self.lengths[indices]
        longest = int(lengths.max())
        if length and length < longest:
            raise ValueError(f"a row of {longest} tokens does not fit into {length}")
        positions = np.arange(length or longest)
        real = positions < lengths[:, None]
        places = (first[:, None] + positions)[real]
        made: Batch = {}
        for name, column in self.columns.items():
            made[name] = np.full(real.shape, self.pad_values[name], np.int32)
            made[name][real] = column.values[places]
        return made


class Sent(Tokens):
    """Texts that are sent as they are, to a server that makes its own tokens; ours are made when they are asked for."""

    def __init__(self, texts: list[Text], encode: "Encode") -> None:
        self._texts, self._encode = texts, encode

    @functools.cached_property
    def _tokens(self) -> Tokens:
        return self._encode(self._texts)

    @property
    def columns(self) -> dict[str, Ragged]:  # type: ignore[override]  # as of tokens, and made late
        """Input name -> rows."""
        return self._tokens.columns

    def __len__(self) -> int:
        return len(self._texts)

    def take(self, indices: Indices) -> "Sent":
        """Return the rows at `indices`, in that order."""
        return Sent([self._texts[int(row)] for row in indices], self._encode)

    def batch(self, indices: Indices, *, length: int | None = None) -> Batch:
        """Return the texts at `indices`: objects [batch, 1] for each text of a row."""
        parts = zip(*(self._texts[int(row)] for row in indices), strict=True)
        return {name: np.array(part, object)[:, None] for name, part in zip(TEXT_INPUTS, parts, strict=False)}


Encode = Callable[[list[Text]], Tokens]
"""Texts to tokens, as every backend has them."""


def encode(
    tokenizer: "PreTrainedTokenizerBase", texts: list[Text], *, max_length: int, inputs: tuple[str, ...]
) -> Tokens:
    """Tokenise one-sentence or two-sentence rows, truncated to `max_length` tokens.

    Raises:
        UsageError: the tokenizer has no padding token, or `max_length` leaves no room for text.
    """
    if tokenizer.pad_token_id is None:
        raise UsageError("the tokenizer has no padding token. Add pad_token to tokenizer_config.json.")
    special = tokenizer.num_special_tokens_to_add(pair=len(texts[0]) == 2)
    if max_length <= special:
        raise UsageError(f"--max-length {max_length}: {special} tokens are special ones. Give {special + 1} or more.")
    pad_values = {
        "input_ids": int(tokenizer.pad_token_id),
        "attention_mask": 0,
        "token_type_ids": int(tokenizer.pad_token_type_id),
    }
    columns = (_in_rust if tokenizer.is_fast else _in_python)(tokenizer, texts, max_length)
    return Tokens({name: columns[name] for name in inputs}, pad_values)


def _in_python(tokenizer: "PreTrainedTokenizerBase", texts: list[Text], max_length: int) -> Columns:
    """Tokenise as transformers does by itself, for tokenizers that are not in its Rust library."""
    parts = [list(part) for part in zip(*texts, strict=True)]
    found: Columns = tokenizer(
        *parts,
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=True,
        return_token_type_ids=True,
    )
    return found


def _in_rust(tokenizer: "PreTrainedTokenizerBase", texts: list[Text], max_length: int) -> Columns:
    """Ask the Rust library itself for the same, without what transformers puts around it: three quarters of the time.

    The library works without Python's lock, so that a model can run meanwhile.
    """
    from transformers.tokenization_utils_base import PaddingStrategy, TruncationStrategy

    tokenizer.set_truncation_and_padding(
        PaddingStrategy.DO_NOT_PAD, TruncationStrategy.LONGEST_FIRST, max_length, 0, None, None
    )
    rust = tokenizer.backend_tokenizer
    rust.encode_special_tokens = tokenizer.split_special_tokens
    found = rust.encode_batch_fast(texts if len(texts[0]) == 2 else [text for (text,) in texts])
    ids = [row.ids for row in found]
    return {
        "input_ids": ids,
        "attention_mask": [[1] * len(row) for row in ids],
        "token_type_ids": [row.type_ids for row in found],
    }


def budget_batches(lengths: Indices, *, max_slots: int) -> Iterator[Indices]:
    """Yield batches of row indices, sorted by length, of at most `max_slots` padded positions.

    A row longer than that makes a batch of its own. Longest first, so that the first batch asks
    for the most memory and no later one makes an arena grow.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, max_slots // max(1, int(lengths[order[start]])))
        yield order[start : start + count]
        start += count


def equal_length_batches(lengths: Indices, *, max_slots: int) -> Iterator[Indices]:
    """Yield batches of rows of one length each: nothing is padded, so there is nothing to mask."""
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        count = max(1, max_slots // max(1, int(length)))
        for start in range(0, len(rows), count):
            yield rows[start : start + count]
