"""What `toolchain generate` measures: a language model that is open, on any backend, and what one batch gave."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Generated:
    """What one batch gave.

    Attributes:
        tokens: generated ids of each row, up to its end of text and with it.
        ended: whether each row's last token is an end of text.
        first_s: time from the call to the first token.
        steps_s: time of each later step.
        cache_bytes: bytes of keys and values of one position of one row, None without a cache.
    """

    tokens: list[list[int]]
    ended: list[bool]
    first_s: float
    steps_s: list[float]
    cache_bytes: int | None

    @property
    def seconds(self) -> float:
        """Time from the call to the last token."""
        return self.first_s + sum(self.steps_s)

    @property
    def count(self) -> int:
        """Number of generated tokens."""
        return sum(map(len, self.tokens))


@dataclass(frozen=True)
class Generator:
    """An open language model.

    Attributes:
        name: the checkpoint or bundle as it was named.
        backend, device, precision: what runs, where, and the type of its weights.
        tokenizer: the checkpoint's.
        positions: positions that the model was made for, None if config.json states none.
        weight_bytes: bytes of the weights that a step reads.
        generate: `generate(batch, cache=, new=, pad=)` continues each row of a batch greedily by at most `new` tokens,
            with the kind `cache` of settings.CACHES; `pad` is the id behind an end of text.
    """

    name: str
    backend: str
    device: str
    precision: str
    tokenizer: "PreTrainedTokenizerBase"
    positions: int | None
    weight_bytes: int
    generate: Callable[..., Generated]


def until_end(row: list[int], ends: set[int]) -> list[int]:
    """Return the ids up to the first end of text, with it."""
    stop = next((index for index, token in enumerate(row) if token in ends), len(row) - 1)
    return row[: stop + 1]


def pad_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id that pads; the mask hides it, so any serves where the tokenizer has none."""
    own = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((one for one in own if one is not None), 0)
