"""Tokenisation: it turns texts into token ids, and token ids into batches with little padding."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import TEXT_INPUTS, Batch
from toolchain.checkpoint.ragged import Indices, Ragged
from toolchain.checkpoint.stored_tokenizer import StoredTokenizer
from toolchain.data.probes import long_text, probe_texts
from toolchain.data.rows import Text
from toolchain.errors import InputError, TextError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Name of a model input -> its values for each row, such as token ids.
Columns = Mapping[str, Sequence[Sequence[int]]]


class Tokens:
    """The token ids of rows, without padding, with the other inputs of the model.

    `columns` maps the name of an input to its rows of integers; a row has the same length in every column.
    `pad_values` maps the name of an input to its value at padded positions. With `equal_length`, all rows of a batch
    must have the same length, because the model's logits depend on padding.
    """

    def __init__(self, columns: Columns, pad_values: dict[str, int], *, equal_length: bool = False) -> None:
        self.equal_length = equal_length
        self.columns = {
            name: column if isinstance(column, Ragged) else Ragged.of(column) for name, column in columns.items()
        }
        self.pad_values = pad_values

    @property
    def lengths(self) -> Indices:
        """The number of tokens of each row, without padding, int64 [rows]."""
        return self.columns["input_ids"].lengths

    def __len__(self) -> int:
        return len(self.columns["input_ids"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokens):
            return NotImplemented
        return (self.columns, self.pad_values) == (other.columns, other.pad_values)

    def take(self, indices: Indices) -> "Tokens":
        """Return the rows at `indices`, in that order."""
        columns = {name: column.take(indices) for name, column in self.columns.items()}
        return Tokens(columns, self.pad_values, equal_length=self.equal_length)

    def batch(self, indices: Indices, *, length: int | None = None) -> Batch:
        """Return the rows at `indices` as a batch, int32 [batch, length], padded to `length` or to the longest row.

        Raises:
            ValueError: a row is longer than `length`, or would be padded although the tokens are `equal_length`.
        """
        first, lengths = self.columns["input_ids"].starts[:-1][indices], self.lengths[indices]
        longest = int(lengths.max())
        if length and length < longest:
            raise ValueError(f"a row of {longest} tokens does not fit into {length}")
        if self.equal_length and (lengths != (length or longest)).any():
            raise ValueError("the model's logits depend on padding, and these rows would be padded")
        positions = np.arange(length or longest)
        real = positions < lengths[:, None]
        places = (first[:, None] + positions)[real]
        made: Batch = {}
        for name, column in self.columns.items():
            made[name] = np.full(real.shape, self.pad_values[name], np.int32)
            made[name][real] = column.values[places]
        return made


class RemoteTexts(Tokens):
    """Texts for a server that tokenizes them itself. They are tokenized here only if `columns` or lengths are read."""

    def __init__(self, texts: list[Text], encode: "Encode") -> None:
        self._texts, self._encode = texts, encode

    @functools.cached_property
    def _tokens(self) -> Tokens:
        return self._encode(self._texts)

    @property
    def equal_length(self) -> bool:  # type: ignore[override]  # a property, computed on first use
        """Whether all rows of a batch must have the same length."""
        return self._tokens.equal_length

    @property
    def columns(self) -> dict[str, Ragged]:  # type: ignore[override]  # a property, computed on first use
        """Input name -> rows of integers, such as token ids."""
        return self._tokens.columns

    def __len__(self) -> int:
        return len(self._texts)

    def take(self, indices: Indices) -> "RemoteTexts":
        """Return the rows at `indices`, in that order."""
        return RemoteTexts([self._texts[int(row)] for row in indices], self._encode)

    def batch(self, indices: Indices, *, length: int | None = None) -> Batch:
        """Return the texts at `indices` as inputs of the server: TEXT, and TEXT_PAIR for pairs, str [batch, 1].

        `length` is ignored.
        """
        parts = zip(*(self._texts[int(row)] for row in indices), strict=True)
        return {name: np.array(part, object)[:, None] for name, part in zip(TEXT_INPUTS, parts, strict=False)}


# A function that tokenizes texts. Every backend has one.
Encode = Callable[[list[Text]], Tokens]


class TextEncoder:
    """Turns texts into token ids; it alone decides on truncation, special tokens and padding values.

    The evaluator, the service and the Python API call it. It may be called from several threads. A Triton repository,
    which has no transformers, needs only `rust` and `split_special_tokens` to compute the same token ids.

    Attributes:
        max_length: the length in tokens to which rows are truncated.
        pad_values: input name -> value at padded positions.
        rust: the tokenizer of the Rust library, with the truncation set; None if transformers gives other token ids.
        split_special_tokens: True if a special token that is written in a text, such as "[SEP]", is read as plain text.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_length: int,
        inputs: tuple[str, ...],
        pad_id: int | None = None,
        vocabulary: int | None = None,
        equal_length: bool = False,
    ) -> None:
        """Prepare a tokenizer.

        Args:
            tokenizer: a tokenizer of transformers, or a bundle's StoredTokenizer; it is not changed.
            max_length: the length in tokens to which rows are truncated.
            inputs: names of the model's inputs, for which columns are returned.
            pad_id: the token id of padded positions; by default the tokenizer's.
            vocabulary: number of rows of the model's embedding table, if larger ids must be refused.
            equal_length: whether all rows of a batch must have the same length.

        Raises:
            UsageError: there is no padding id.
        """
        pad_id = tokenizer.pad_token_id if pad_id is None else pad_id
        if pad_id is None:
            raise UsageError("the tokenizer lacks a padding token. Add pad_token to tokenizer_config.json.")
        self.max_length, self.split_special_tokens = max_length, bool(tokenizer.split_special_tokens)
        self.pad_values = {"input_ids": int(pad_id), "attention_mask": 0}
        self.pad_values["token_type_ids"] = int(tokenizer.pad_token_type_id)
        self._tokenizer, self._inputs, self._equal_length = tokenizer, inputs, equal_length
        largest = max(tokenizer.get_vocab().values()) if vocabulary else 0
        self._vocabulary = vocabulary if vocabulary and largest >= vocabulary else None
        self.rust = self._faithful_rust() if tokenizer.is_fast else None

    def __call__(self, texts: list[Text]) -> Tokens:
        """Return the token ids of rows, each with one text or two, truncated to `max_length`.

        Raises:
            TextError: a text has no token at all, or a token that the model's embedding table lacks.
            UsageError: `max_length` leaves no room for text beside the special tokens.
        """
        special = self._tokenizer.num_special_tokens_to_add(pair=len(texts[0]) == 2)
        if self.max_length <= special:
            raise UsageError(
                f"--max-length {self.max_length}: the {special} special tokens of a row leave no room for its text. "
                f"Give {special + 1} or more."
            )
        columns = self._in_rust(self.rust, texts) if self.rust is not None else self._in_python(texts)
        tokens = Tokens(
            {name: columns[name] for name in self._inputs}, self.pad_values, equal_length=self._equal_length
        )
        if not tokens.lengths.all():  # a row is empty if its text has no tokens and the tokenizer adds none
            text = texts[int(np.argmin(tokens.lengths))]
            what = f"the text {' '.join(text)!r:.60} has no tokens, so the model cannot be run on it. Remove the row."
            raise TextError(text, what)
        if self._vocabulary is not None:
            self._check_ids(tokens.columns["input_ids"], texts, self._vocabulary)
        return tokens

    def spans(self, texts: Sequence[Text]) -> list[NDArray[np.int64]]:
        """Return where the tokens of each text are in the text, int64 [tokens, 3] per text.

        The columns are the index of the token's word (-1 for special tokens), and the offsets of the token's first
        character and of the character after its last one.

        Raises:
            InputError: the tokenizer does not give offsets.
        """
        if self.rust is None:
            raise InputError(
                "the tokenizer gives no character offsets of its tokens, which token classification needs. "
                "Give a checkpoint with tokenizer.json."
            )
        found = self.rust.encode_batch([text for (text,) in texts])
        words = [[-1 if word is None else word for word in row.word_ids] for row in found]
        return [
            np.column_stack([own, np.array(row.offsets, np.int64).reshape(-1, 2)])
            for own, row in zip(words, found, strict=True)
        ]

    def _check_ids(self, ids: Ragged, texts: list[Text], rows: int) -> None:
        beyond = np.flatnonzero(ids.values >= rows)
        if len(beyond):
            text = texts[int(np.searchsorted(ids.starts, beyond[0], side="right")) - 1]
            index = int(ids.values[beyond[0]])
            token = self._tokenizer.convert_ids_to_tokens(index)
            raise TextError(
                text,
                f"the text {' '.join(text):.60} has the token {token!r} with the id {index}, but the model's embedding "
                f"table has only {rows} rows. Remove the token, or give the tokenizer that the model was trained with.",
            )

    def _in_python(self, texts: list[Text]) -> Columns:
        """Tokenize with transformers, for tokenizers that the Rust library cannot replace."""
        parts = [list(part) for part in zip(*texts, strict=True)]
        found: Columns = self._tokenizer(
            *parts,
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=True,
            return_token_type_ids=True,
        )
        return found

    def _in_rust(self, rust: Any, texts: list[Text]) -> Columns:
        """Tokenize with the Rust library directly, in three quarters of the time that transformers takes.

        The library releases Python's global interpreter lock, so a model can run at the same time.
        """
        if len(texts) == 1:  # `encode` starts no threads, which would take longer than one row
            found = [rust.encode(*texts[0])]
        else:
            found = rust.encode_batch_fast(texts if len(texts[0]) == 2 else [text for (text,) in texts])
        ids = Ragged.of([row.ids for row in found])
        types = [row.type_ids for row in found] if "token_type_ids" in self._inputs else []
        return {"input_ids": ids, "attention_mask": ids.ones(), "token_type_ids": types}

    def _faithful_rust(self) -> Any:
        """Return a copy of the Rust tokenizer with the truncation set; None if transformers gives other token ids.

        They differ if the class in transformers does more than its Rust tokenizer, such as normalizing texts.
        """
        from tokenizers import Tokenizer

        rust = Tokenizer.from_str(self._tokenizer.backend_tokenizer.to_str())
        rust.no_padding()
        rust.encode_special_tokens = self.split_special_tokens
        rust.enable_truncation(self.max_length, direction=self._tokenizer.truncation_side)
        if isinstance(self._tokenizer, StoredTokenizer):
            return rust  # the build compared its token ids with transformers'
        for columns in (1, 2):
            texts = [*probe_texts(columns), ("",) * columns, long_text(columns, self.max_length)]
            if self.max_length <= self._tokenizer.num_special_tokens_to_add(pair=columns == 2):
                continue
            found, expected = self._in_rust(rust, texts), self._in_python(texts)
            if any(found[name] != expected[name] for name in self._inputs):
                return None
        return rust


def batches(tokens: Tokens, *, max_slots: int, rows: Indices | None = None) -> Iterator[Indices]:
    """Yield batches with at most `max_slots` positions each, counting padding.

    A batch is an array of row indices. If `rows` is given, only these rows are batched, and a batch has indices into
    `rows`. With `tokens.equal_length`, all rows of a batch have the same length.
    """
    plan = equal_length_batches if tokens.equal_length else budget_batches
    return plan(tokens.lengths if rows is None else tokens.lengths[rows], max_slots=max_slots)


def batches_of(tokens: Tokens, size: int) -> Iterator[Indices]:
    """Yield batches of `size` row indices, longest rows first; the last batch may be smaller.

    With `tokens.equal_length`, all rows of a batch have the same length, and the last batch of each length may be
    smaller.
    """
    order = np.argsort(-tokens.lengths, kind="stable")
    changes = np.flatnonzero(np.diff(tokens.lengths[order])) + 1
    for group in np.split(order, changes) if tokens.equal_length else [order]:
        yield from (group[start : start + size] for start in range(0, len(group), size))


def budget_batches(lengths: Indices, *, max_slots: int) -> Iterator[Indices]:
    """Yield batches of row indices, longest rows first, with at most `max_slots` positions each, counting padding.

    A row of more than `max_slots` tokens is a batch of its own. The first batch needs the most memory, so the memory
    arena of a runtime does not grow later.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        count = max(1, max_slots // max(1, int(lengths[order[start]])))
        yield order[start : start + count]
        start += count


def equal_length_batches(lengths: Indices, *, max_slots: int) -> Iterator[Indices]:
    """Yield batches of row indices with at most `max_slots` positions each; the rows of a batch have equal lengths."""
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        count = max(1, max_slots // max(1, int(length)))
        for start in range(0, len(rows), count):
            yield rows[start : start + count]
