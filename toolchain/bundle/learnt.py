"""The lists of the rows that a bundle's model learnt from in `toolchain shrink` or `toolchain heal`.

A row is listed by the digest of its text. `shrink` writes a list into its checkpoint, which `build` copies into the
bundle; `heal` writes another list. `cascade` does not choose its threshold on listed rows, and `eval` reports how many
of the evaluated rows are listed.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from toolchain.base.files import read_json, write_json
from toolchain.bundle import Bundle
from toolchain.errors import InputError

# File name of the list in a checkpoint that `toolchain shrink` made.
OF_CHECKPOINT = "shrink.rows.json"

# File names of the lists in a bundle: of the rows for `shrink`, and of the rows for `heal`.
OF_SHRINK, OF_HEAL = "learnt/shrink.json", "learnt/heal.json"


def write_learnt(file: Path, digests: Iterable[str]) -> None:
    """Write a list of the digests of rows (`Rows.text_digests`) to a JSON file, sorted and without duplicates."""
    write_json(file, sorted({*digests}))


def read_learnt(file: Path) -> list[str]:
    """Return the digests of rows in a file that `write_learnt` wrote; an empty list if the file does not exist.

    Raises:
        InputError: the file is not a list of digests.
    """
    if not file.exists():
        return []
    advice = "Run toolchain shrink or toolchain heal again."
    return _checked(read_json(file, what="the list of rows that the model learnt from", advice=advice), file, advice)


def read_listed(bundle: Bundle, name: str, *, advice: str) -> list[str]:
    """Return the digests of rows that the artefact `name` lists; `advice` ends the error message for a broken list.

    Raises:
        InputError: the artefact is not a list of digests; see also `Bundle.read`.
    """
    try:
        found = json.loads(bundle.read(name))
    except (ValueError, RecursionError):
        found = None
    return _checked(found, bundle.path / name, advice)


def _checked(found: object, file: Path, advice: str) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"{file}: broken: it is not a list of digests. {advice}")
    return found


def learnt_digests(bundle: Bundle, *, healed: bool = True) -> set[str]:
    """Return the digests of the rows that a bundle's model learnt from; of a cascade, the rows of all its stages.

    The set is empty if the bundle lists no such rows. `healed=False` leaves out the rows of `heal`, whose weights only
    INT8 graphs have.

    Raises:
        InputError: see `read_listed`.
    """
    ends = (OF_SHRINK, OF_HEAL) if healed else (OF_SHRINK,)
    names = [name for name in bundle.manifest["artefacts"] if name.endswith(ends)]
    advice = "Run toolchain shrink or toolchain heal again."
    return {digest for name in names for digest in read_listed(bundle, name, advice=advice)}
