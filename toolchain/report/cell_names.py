"""Short names of the cells of a sweep, which consist of the values of the options that differ between the cells.

A cell is one combination of options that `toolchain sweep` builds and evaluates.
"""

from collections.abc import Sequence
from pathlib import Path

from toolchain.records.sweep import SweepCell

# Characters of a key that name a cell where no option differs.
SHORT = 8


def varying(cells: Sequence[SweepCell]) -> list[str]:
    """Return the names of the options with more than one value among the cells. Cells without an option are ignored."""
    keys = dict.fromkeys(key for cell in cells for key in cell["options"])
    return [key for key in keys if len({repr(one["options"][key]) for one in cells if key in one["options"]}) > 1]


def short_name(cell: SweepCell, keys: Sequence[str]) -> str:
    """Return a name for a cell: its values of the options `keys`, or the start of its digest if it lacks them all."""
    return " ".join(shown(cell, key) for key in keys if key in cell["options"]) or cell["key"][:SHORT]


def shown(cell: SweepCell, key: str) -> str:
    """Return a cell's value of the option `key` as text: of a path, the last part; '-' if the cell lacks the option."""
    value = cell["options"].get(key, "-")
    return (Path(value).name or value) if isinstance(value, str) else str(value)
