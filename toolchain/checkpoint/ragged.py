"""Rows of different lengths in one flat array. The array takes an eighth of the memory of lists."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ragged(Sequence[list[int]]):
    """Rows of integers with different lengths, such as token ids; row i is `values[starts[i] : starts[i + 1]]`.

    `values` is int32 [numbers] and `starts` int64 [rows + 1]. As a sequence, it has one list of int for each row.
    """

    values: NDArray[np.int32]
    starts: Indices

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "Ragged":
        """Make a Ragged from one list of integers for each row.

        Raises:
            OverflowError: a number is too large for int32.
        """
        starts = _starts(np.fromiter(map(len, rows), np.int64, len(rows)))
        return cls(np.fromiter(itertools.chain.from_iterable(rows), np.int32, int(starts[-1])), starts)

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """Return the rows of all `parts` in one Ragged, in order."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.values for part in parts]), _starts(lengths))

    @functools.cached_property
    def lengths(self) -> Indices:
        """The length of each row, int64 [rows]."""
        return np.diff(self.starts)

    def take(self, indices: Indices) -> "Ragged":
        """Return the rows at `indices`, in that order."""
        lengths = self.lengths[indices]
        starts = _starts(lengths)
        # Index of each number in self.values: the start of its row there, plus the number's offset in the row.
        places = np.arange(starts[-1]) + np.repeat(self.starts[:-1][indices] - starts[:-1], lengths)
        return Ragged(self.values[places], starts)

    def ones(self) -> "Ragged":
        """Return a Ragged with the same lengths of rows and only ones as values, such as for an attention mask."""
        return Ragged(np.ones_like(self.values), self.starts)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        row = range(len(self))[index]
        numbers: list[int] = self.values[self.starts[row] : self.starts[row + 1]].tolist()
        return numbers


def _starts(lengths: Indices) -> Indices:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
