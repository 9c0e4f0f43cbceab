"""The common interface of the backends of `toolchain generate`: an open language model, and the result of one batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Generated:
    """The tokens that were generated for one batch, and how long it took.

    Attributes:
        tokens: generated ids of each row, up to and including its end of text.
        ended: whether each row's last token is an end of text.
        first_s: seconds from the call to the first token.
        steps_s: seconds of each later step, which adds one token to every row.
        cache_bytes: bytes of the keys and values of one position of one row; None without a cache.
    """

    tokens: list[list[int]]
    ended: list[bool]
    first_s: float
    steps_s: list[float]
    cache_bytes: int | None

    @property
    def seconds(self) -> float:
        """Seconds from the call to the last token."""
        return self.first_s + sum(self.steps_s)

    @property
    def count(self) -> int:
        """Number of generated tokens of all rows."""
        return sum(map(len, self.tokens))


@dataclass(frozen=True)
class Generator:
    """An open language model.

    Attributes:
        name: the checkpoint or bundle, as the user named it.
        backend, device, precision: the runtime, the device that it runs on, and the precision of the weights.
        tokenizer: the checkpoint's tokenizer.
        positions: number of positions that the model was made for; None if config.json does not state it.
        weight_bytes: bytes of the weights that a decode step reads.
        generate: `generate(batch, cache=, new=, pad=)` continues each row of a batch greedily by up to `new` tokens.
            `cache` is a key of settings.CACHES, and the id `pad` fills a row after its end of text.
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
    """Return the ids of a row up to and including the first end of text, or all if it has none."""
    stop = next((index for index, token in enumerate(row) if token in ends), len(row) - 1)
    return row[: stop + 1]


def pad_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the id for padding. If the tokenizer has none, any id will do, because the mask hides it."""
    own = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((one for one in own if one is not None), 0)
