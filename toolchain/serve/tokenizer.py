"""Texts to token ids with the Rust tokenizer alone: the same ids as `checkpoint.tokenize.encode`, in less time."""

from typing import TYPE_CHECKING

from toolchain.checkpoint.ragged import Ragged
from toolchain.checkpoint.tokenize import Tokens, encode
from toolchain.data.rows import Text
from toolchain.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RustTokenizer:
    """A Rust tokenizer whose truncation is set once, not with each call."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", *, columns: int, max_length: int, inputs: tuple[str, ...]
    ) -> None:
        """Copy a checkpoint's tokenizer, for rows of `columns` texts.

        Raises:
            InputError: the tokenizer lacks a Rust form.
            UsageError: the tokenizer has no padding token, or `max_length` leaves no tokens for text.
        """
        if not tokenizer.is_fast:
            raise InputError("the bundle's tokenizer has no Rust form. Put its tokenizer.json beside the model.")
        from tokenizers import Tokenizer

        example: list[Text] = [("a",) * columns]
        self.pad_values = encode(tokenizer, example, max_length=max_length, inputs=inputs).pad_values
        # A copy, because another user of a shared tokenizer would change its truncation.
        self._rust = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._rust.encode_special_tokens = tokenizer.split_special_tokens
        self._rust.no_padding()
        self._rust.enable_truncation(max_length)
        self._has_token_types = "token_type_ids" in inputs

    def __call__(self, texts: list[Text]) -> Tokens:
        """Return the tokens of rows, truncated to `max_length`."""
        if len(texts) == 1:
            first, *pair = texts[0]
            encodings = [self._rust.encode(first, pair[0] if pair else None)]
        else:
            encodings = self._rust.encode_batch_fast([text if len(text) == 2 else text[0] for text in texts])
        ids = Ragged.of([row.ids for row in encodings])
        columns = {"input_ids": ids, "attention_mask": ids.ones()}
        if self._has_token_types:
            columns["token_type_ids"] = Ragged.of([row.type_ids for row in encodings])
        return Tokens(columns, self.pad_values)
