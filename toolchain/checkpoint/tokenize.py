"""Tokenisation: texts to token ids, and token ids to batches with little padding."""

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


# Input name -> rows of ints.
Columns = Mapping[str, Sequence[Sequence[int]]]


class Tokens:
    """Token ids of rows, without padding.

    `columns` maps an input's name to its rows of ints; a row has the same length in every column. `pad_values` maps it
    to the value of padded positions.
    """

    def __init__(self, columns: Columns, pad_values: dict[str, int]) -> None:
        self.columns = {
            name: column if isinstance(column, Ragged) else Ragged.of(column) for name, column in columns.items()
        }
        self.pad_values = pad_values

    @property
    def lengths(self) -> Indices:
        """The number of real tokens of each row, int64 [rows]."""
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


class RemoteTexts(Tokens):
    """Texts for a server that tokenises them itself. They are tokenised here only when `columns` is read."""

    def __init__(self, texts: list[Text], encode: "Encode") -> None:
        self._texts, self._encode = texts, encode

    @functools.cached_property
    def _tokens(self) -> Tokens:
        return self._encode(self._texts)

    @property
    def columns(self) -> dict[str, Ragged]:  # type: ignore[override]  # a property, computed on first use
        """Input name -> rows of token ids."""
        return self._tokens.columns

    def __len__(self) -> int:
        return len(self._texts)

    def take(self, indices: Indices) -> "RemoteTexts":
        """Return the rows at `indices`, in that order."""
        return RemoteTexts([self._texts[int(row)] for row in indices], self._encode)

    def batch(self, indices: Indices, *, length: int | None = None) -> Batch:
        """Return the texts at `indices`: for each of TEXT_INPUTS that a row has, str objects [batch, 1]."""
        parts = zip(*(self._texts[int(row)] for row in indices), strict=True)
        return {name: np.array(part, object)[:, None] for name, part in zip(TEXT_INPUTS, parts, strict=False)}


# Tokenises texts; every backend has such a function.
Encode = Callable[[list[Text]], Tokens]


def encode(
    tokenizer: "PreTrainedTokenizerBase", texts: list[Text], *, max_length: int, inputs: tuple[str, ...]
) -> Tokens:
    """Tokenise rows of one text or two, truncated to `max_length` tokens; `inputs` names the columns to return.

    Raises:
        UsageError: the tokenizer lacks a padding token, or `max_length` is too small for any token of the text.
    """
    if tokenizer.pad_token_id is None:
        raise UsageError("the tokenizer lacks a padding token. Add pad_token to tokenizer_config.json.")
    special = tokenizer.num_special_tokens_to_add(pair=len(texts[0]) == 2)
    if max_length <= special:
        raise UsageError(f"--max-length {max_length}: {special} tokens are special tokens. Give {special + 1} or more.")
    pad_values = {
        "input_ids": int(tokenizer.pad_token_id),
        "attention_mask": 0,
        "token_type_ids": int(tokenizer.pad_token_type_id),
    }
    columns = (_in_rust if tokenizer.is_fast else _in_python)(tokenizer, texts, max_length)
    return Tokens({name: columns[name] for name in inputs}, pad_values)


def _in_python(tokenizer: "PreTrainedTokenizerBase", texts: list[Text], max_length: int) -> Columns:
    """Tokenise through transformers, for tokenizers that its Rust library lacks."""
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
    """Tokenise through transformers' Rust library directly, in three quarters of the time.

    The library releases Python's global lock, so a model can run meanwhile.
    """
    from transformers.tokenization_utils_base import PaddingStrategy, TruncationStrategy

    tokenizer.set_truncation_and_padding(
        PaddingStrategy.DO_NOT_PAD, TruncationStrategy.LONGEST_FIRST, max_length, 0, None, None
    )
    rust = tokenizer.backend_tokenizer
    rust.encode_special_tokens = tokenizer.split_special_tokens
    found = rust.encode_batch_fast(texts if len(texts[0]) == 2 else [text for (text,) in texts])
    ids = Ragged.of([row.ids for row in found])
    return {"input_ids": ids, "attention_mask": ids.ones(), "token_type_ids": [row.type_ids for row in found]}


def budget_batches(lengths: Indices, *, max_slots: int) -> Iterator[Indices]:
    """Yield batches of row indices, sorted by length, of at most `max_slots` positions with padding.

    A longer row is a batch of its own. The longest rows come first, so that the first batch needs the most memory and
    no later one makes a memory arena grow.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, max_slots // max(1, int(lengths[order[start]])))
        yield order[start : start + count]
        start += count


def equal_length_batches(lengths: Indices, *, max_slots: int) -> Iterator[Indices]:
    """Yield batches of row indices, each of one length, so that nothing is padded, of at most `max_slots` positions."""
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        count = max(1, max_slots // max(1, int(length)))
        for start in range(0, len(rows), count):
            yield rows[start : start + count]
