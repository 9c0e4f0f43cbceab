"""The shapes that an engine is built for: optimisation profiles, one or one for each length bucket."""

from dataclasses import dataclass

from toolchain.errors import InputError, UsageError

Triple = tuple[int, int, int]
"""Least, best and largest value of one dimension: kMIN, kOPT, kMAX."""

DEFAULT_BATCH: Triple = (1, 32, 128)
DEFAULT_LENGTH = 64
"""Tokens that an engine without buckets is tuned for."""


@dataclass(frozen=True)
class Profile:
    """Rows a batch and tokens a row that one optimisation profile takes."""

    batch: Triple
    length: Triple

    def padded(self, inputs: list[str]) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Return input name -> (min, opt, max) shapes of a graph that takes [batch, length]."""
        shapes = tuple(zip(self.batch, self.length, strict=True))
        return dict.fromkeys(inputs, shapes)

    def packed(self, inputs: list[str]) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Return the same for a graph without padding: all tokens in one row (graph/packed.py).

        The least is one token always: rows need not be long, nor many, where none is padded.
        """
        _, rows, most_rows = self.batch
        _, length, longest = self.length
        tokens = (1,), (rows * length,), (most_rows * longest,)
        own = {"cu_seqlens": ((2,), (rows + 1,), (most_rows + 1,)), "max_seqlen": ((1,), (length,), (longest,))}
        return {name: own.get(name, tokens) for name in inputs}

    def to_json(self) -> dict[str, list[int]]:
        """Return the form that plan.json holds."""
        return {"batch": list(self.batch), "length": list(self.length)}


def parse_triple(option: str, text: str | None, default: Triple) -> Triple:
    """Read `MIN,OPT,MAX`, or one number for all three.

    Raises:
        UsageError: they are no whole numbers, below 1, or not in rising order.
    """
    if text is None:
        return default
    numbers = _numbers(option, text)
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or numbers != sorted(numbers):
        raise UsageError(f"--{option} {text}: not MIN,OPT,MAX in rising order. Give three numbers such as 1,8,32.")
    return numbers[0], numbers[1], numbers[2]


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--{option} {text}: not whole numbers from 1. Separate them with commas.")
    return [int(part) for part in parts]


def make_profiles(batch: str | None, length: str | None, buckets: str | None, *, max_length: int) -> list[Profile]:
    """Return the profiles that `--batch-size`, `--seq-len` and `--buckets` describe, shortest first.

    A bucket's profile takes lengths from just above the bucket before it, and is tuned for its own largest length.

    Raises:
        UsageError: an option cannot be read, or asks for more than `max_length` tokens.
    """
    rows = parse_triple("batch-size", batch, DEFAULT_BATCH)
    lengths = parse_triple("seq-len", length, (1, min(DEFAULT_LENGTH, max_length), max_length))
    if lengths[2] > max_length:
        raise UsageError(f"--seq-len {length}: the model takes {max_length} tokens. Give that or less.")
    if buckets is None:
        return [Profile(rows, lengths)]
    ends = _numbers("buckets", buckets)
    if ends != sorted(set(ends)):
        raise UsageError(f"--buckets {buckets}: not in rising order. Give lengths such as 16,32,64,128.")
    if ends[-1] > max_length:
        raise UsageError(f"--buckets {buckets}: the model takes {max_length} tokens. Give that or less.")
    if length is not None:
        raise UsageError("--buckets and --seq-len say the same thing twice. Give one of them.")
    starts = [1, *(end + 1 for end in ends[:-1])]
    return [Profile(rows, (start, end, end)) for start, end in zip(starts, ends, strict=True)]


def choose_profile(profiles: list[Profile], *, rows: int, length: int) -> int:
    """Return the index of the profile for rows of this length: the tightest that holds them.

    Raises:
        InputError: none does.
    """
    fitting = [index for index, one in enumerate(profiles) if length <= one.length[2] and rows <= one.batch[2]]
    if not fitting:
        largest = max(one.length[2] for one in profiles)
        raise InputError(
            f"plan: takes up to {largest} tokens a row, not {length}. Build it for more with --seq-len or --buckets."
        )
    return min(fitting, key=lambda index: profiles[index].length[2])
