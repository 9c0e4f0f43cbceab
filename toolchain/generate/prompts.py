"""Makes batches of token ids from prompts, padded on the left, so that all rows end at the same position."""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import InputError, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PromptBatch:
    """A batch of prompts: token ids and attention mask, int64 [rows, length]. The mask is 0 at padded positions."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]

    @property
    def tokens(self) -> int:
        """Number of prompt tokens, padded positions not counted."""
        return int(self.mask.sum())


def encode(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], *, source: str) -> list[list[int]]:
    """Return the token ids of each prompt, with the special tokens that the tokenizer adds.

    Raises:
        InputError: there is no prompt, or a prompt has no tokens. The message names `source` and the prompt's number.
    """
    rows = [list(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    check_prompts(prompts, rows, source=source)
    return rows


def check_prompts(prompts: Sequence[str], rows: Sequence[Sized], *, source: str) -> None:
    """Refuse prompts without text. `rows` has what was made of each prompt, such as its ids; none may be empty.

    Raises:
        InputError: see `encode`.
    """
    if not prompts:
        raise InputError(f"{source}: there is no prompt. Give --prompt TEXT, or a table with --data FILE.")
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True), 1):
        if not prompt.strip() or not row:
            raise InputError(f"{source}: prompt {number} is empty. Write a text there, or remove it.")


def check_room(rows: Sequence[Sequence[int]], new: int, positions: int | None, *, source: str) -> None:
    """Refuse prompts that leave too few of the model's positions for the new tokens.

    Raises:
        UsageError: they are refused. The message names the longest prompt.
    """
    longest = max(range(len(rows)), key=lambda index: len(rows[index]))
    length = len(rows[longest])
    if positions is not None and length + new > positions:
        advice = (
            f"Give --max-new-tokens {positions - length} or less" if length < positions else "Give a shorter prompt"
        )
        raise UsageError(
            f"{source}: prompt {longest + 1} has {length} tokens, and with {new} new ones that is more than the "
            f"model's {positions} positions. {advice}."
        )


def batches(rows: Sequence[Sequence[int]], size: int, pad: int) -> Iterator[PromptBatch]:
    """Yield the rows in their order in batches of `size`, padded on the left with the id `pad`."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        shape = len(part), max(map(len, part))
        ids, mask = np.full(shape, pad, np.int64), np.zeros(shape, np.int64)
        for index, row in enumerate(part):
            ids[index, shape[1] - len(row) :] = row
            mask[index, shape[1] - len(row) :] = 1
        yield PromptBatch(ids, mask)
