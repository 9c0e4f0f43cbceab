"""Short names of the cells of a sweep: the values of the options that differ between them."""

from collections.abc import Sequence
from pathlib import Path

from toolchain.records.sweep import SweepCell

# Characters of a key that name a cell where no option differs.
SHORT = 8


def varying(cells: Sequence[SweepCell]) -> list[str]:
    """Return the options that differ between the cells that have them."""
    keys = dict.fromkeys(key for cell in cells for key in cell["options"])
    return [key for key in keys if len({repr(one["options"][key]) for one in cells if key in one["options"]}) > 1]


def short_name(cell: SweepCell, keys: Sequence[str]) -> str:
    """Return the values of some options of a cell, as a name."""
    return " ".join(shown(cell, key) for key in keys if key in cell["options"]) or cell["key"][:SHORT]


def shown(cell: SweepCell, key: str) -> str:
    """Return the value of an option, of a path its last part; '-' if the cell lacks it."""
    value = cell["options"].get(key, "-")
    return (Path(value).name or value) if isinstance(value, str) else str(value)
