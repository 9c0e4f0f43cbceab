"""Optimisation profiles: the shapes that an engine is built for, one profile or one for each length bucket."""

from dataclasses import dataclass

from toolchain.errors import InputError, UsageError
from toolchain.records.plan import ProfileRecord

# The smallest, the best and the largest value of one dimension: kMIN, kOPT, kMAX.
Triple = tuple[int, int, int]

DEFAULT_BATCH: Triple = (1, 32, 128)

# Tokens per row that an engine without buckets is tuned for.
DEFAULT_LENGTH = 64


@dataclass(frozen=True)
class Profile:
    """One optimisation profile: rows per batch and tokens per row."""

    batch: Triple
    length: Triple

    def padded(self, inputs: list[str]) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Return input name -> (min, opt, max) shapes, for a graph with inputs of [batch, length]."""
        shapes = tuple(zip(self.batch, self.length, strict=True))
        return dict.fromkeys(inputs, shapes)

    def packed(self, inputs: list[str]) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Return input name -> (min, opt, max) shapes, for a graph without padding (graph/plugin_graph.py).

        The smallest shape is always one token, because without padding rows may be shorter and fewer than in `batch`
        and `length`.
        """
        _, rows, most_rows = self.batch
        _, length, longest = self.length
        tokens = (1,), (rows * length,), (most_rows * longest,)
        own = {"cu_seqlens": ((2,), (rows + 1,), (most_rows + 1,)), "max_seqlen": ((1,), (length,), (longest,))}
        return {name: own.get(name, tokens) for name in inputs}

    @classmethod
    def from_json(cls, record: ProfileRecord) -> "Profile":
        """Return the profile that an entry of plan.json states."""
        batch, length = record["batch"], record["length"]
        return cls((batch[0], batch[1], batch[2]), (length[0], length[1], length[2]))

    def to_json(self) -> ProfileRecord:
        """Return the entry of plan.json."""
        return {"batch": list(self.batch), "length": list(self.length)}


def parse_triple(option: str, text: str | None, default: Triple) -> Triple:
    """Return the triple that `MIN,OPT,MAX` or one number states, or the default if `text` is None.

    Raises:
        UsageError: a part is not a whole number from 1, or they are not in rising order. It names `option`.
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
    """Return the profiles that `--batch-size`, `--seq-len` and `--buckets` state, shortest first.

    The profile of a bucket takes lengths from just above the bucket before it, and is tuned for its largest length.

    Raises:
        UsageError: an option cannot be read, or asks for more than `max_length` tokens.
    """
    rows = parse_triple("batch-size", batch, DEFAULT_BATCH)
    lengths = parse_triple("seq-len", length, (1, min(DEFAULT_LENGTH, max_length), max_length))
    if lengths[2] > max_length:
        raise UsageError(f"--seq-len {length}: the model takes at most {max_length} tokens. Give no larger length.")
    if buckets is None:
        return [Profile(rows, lengths)]
    ends = _numbers("buckets", buckets)
    if ends != sorted(set(ends)):
        raise UsageError(f"--buckets {buckets}: not in rising order. Give lengths such as 16,32,64,128.")
    if ends[-1] > max_length:
        raise UsageError(f"--buckets {buckets}: the model takes at most {max_length} tokens. Give no larger length.")
    if length is not None:
        raise UsageError("--buckets and --seq-len both state lengths. Give one of them.")
    starts = [1, *(end + 1 for end in ends[:-1])]
    return [Profile(rows, (start, end, end)) for start, end in zip(starts, ends, strict=True)]


def choose_profile(profiles: list[Profile], *, rows: int, length: int) -> int:
    """Return the index of the profile with the smallest maximum that holds `rows` rows of `length` tokens.

    Raises:
        InputError: no profile holds them.
    """
    fitting = [index for index, one in enumerate(profiles) if length <= one.length[2] and rows <= one.batch[2]]
    if not fitting:
        largest = max(one.length[2] for one in profiles)
        raise InputError(
            f"plan: takes up to {largest} tokens per row, not {length}. Build it for more with --seq-len or --buckets."
        )
    return min(fitting, key=lambda index: profiles[index].length[2])
