"""Optimisation profiles: the ranges of shapes that an engine is built for, one for each length bucket."""

from dataclasses import dataclass

from toolchain.errors import InputError, UsageError
from toolchain.records.plan import ProfileRecord

# The minimum, optimum and maximum of one dimension: kMIN, kOPT, kMAX.
Triple = tuple[int, int, int]

DEFAULT_BATCH: Triple = (1, 32, 128)

# Number of tokens per row for which an engine without length buckets is optimised (kOPT).
DEFAULT_LENGTH = 64


@dataclass(frozen=True)
class Profile:
    """An optimisation profile: the minimum, optimum and maximum of rows per batch and of tokens per row."""

    batch: Triple
    length: Triple

    def padded(self, inputs: list[str]) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Return input name -> (min, opt, max) shapes, for a graph with inputs of [batch, length]."""
        shapes = tuple(zip(self.batch, self.length, strict=True))
        return dict.fromkeys(inputs, shapes)

    def packed(self, inputs: list[str]) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Return input name -> (min, opt, max) shapes, for a graph without padding (graph/plugin_graph.py).

        The smallest shape is always one row of one token, because without padding a batch may have fewer tokens than
        the minima of `batch` and `length` state.
        """
        _, rows, most_rows = self.batch
        _, length, longest = self.length
        tokens = (1,), (rows * length,), (most_rows * longest,)
        own = {"cu_seqlens": ((2,), (rows + 1,), (most_rows + 1,)), "max_seqlen": ((1,), (length,), (longest,))}
        return {name: own.get(name, tokens) for name in inputs}

    @classmethod
    def from_json(cls, record: ProfileRecord) -> "Profile":
        """Return the profile of an entry in plan.json."""
        batch, length = record["batch"], record["length"]
        return cls((batch[0], batch[1], batch[2]), (length[0], length[1], length[2]))

    def to_json(self) -> ProfileRecord:
        """Return the profile as an entry of plan.json."""
        return {"batch": list(self.batch), "length": list(self.length)}


def parse_triple(option: str, text: str | None, default: Triple) -> Triple:
    """Parse the value of an option: `MIN,OPT,MAX`, or one number for all three. Return the default for None.

    Raises:
        UsageError: a number is not a whole number above 0, or the numbers are not in rising order.
    """
    if text is None:
        return default
    numbers = _numbers(option, text)
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or numbers != sorted(numbers):
        raise UsageError(f"--{option} {text}: this is not MIN,OPT,MAX in rising order. Give numbers such as 1,8,32.")
    return numbers[0], numbers[1], numbers[2]


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(
            f"--{option} {text}: this is not a list of whole numbers above 0. Separate the numbers with commas."
        )
    return [int(part) for part in parts]


def make_profiles(batch: str | None, length: str | None, buckets: str | None, *, max_length: int) -> list[Profile]:
    """Return the profiles for the values of `--batch-size`, `--seq-len` and `--buckets`, the shortest lengths first.

    A bucket has one profile, for lengths above those of the previous bucket. It is tuned for its largest length.

    Raises:
        UsageError: an option cannot be read, or asks for more than `max_length` tokens.
    """
    rows = parse_triple("batch-size", batch, DEFAULT_BATCH)
    lengths = parse_triple("seq-len", length, (1, min(DEFAULT_LENGTH, max_length), max_length))
    if lengths[2] > max_length:
        raise UsageError(f"--seq-len {length}: the model takes at most {max_length} tokens. Give smaller lengths.")
    if buckets is None:
        return [Profile(rows, lengths)]
    ends = _numbers("buckets", buckets)
    if ends != sorted(set(ends)):
        raise UsageError(f"--buckets {buckets}: the lengths must rise. Give lengths such as 16,32,64,128.")
    if ends[-1] > max_length:
        raise UsageError(f"--buckets {buckets}: the model takes at most {max_length} tokens. Give smaller lengths.")
    if length is not None:
        raise UsageError("--buckets and --seq-len are both given, and both state lengths. Give only one of them.")
    starts = [1, *(end + 1 for end in ends[:-1])]
    return [Profile(rows, (start, end, end)) for start, end in zip(starts, ends, strict=True)]


def choose_profile(profiles: list[Profile], *, rows: int, length: int) -> int:
    """Return the index of the profile with the smallest maximum length that allows `rows` rows of `length` tokens.

    Raises:
        InputError: no profile allows this shape.
    """
    fitting = [index for index, one in enumerate(profiles) if length <= one.length[2] and rows <= one.batch[2]]
    if not fitting:
        largest = max(one.length[2] for one in profiles)
        raise InputError(
            f"plan: it has no profile for {rows} rows of {length} tokens (at most {largest} tokens per row). "
            "Build the plan for larger shapes with --batch-size, --seq-len or --buckets."
        )
    return min(fitting, key=lambda index: profiles[index].length[2])
