"""The rows that a bundle's model learnt from in `toolchain shrink` or `heal`, by the digests of their texts.

`shrink` lists them beside its checkpoint's record, `build` copies the list into the bundle, and `heal` lists its own.
`cascade` does not choose its threshold on them, and `eval` counts those among the rows that it evaluates.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from toolchain.base.files import read_json, write_json
from toolchain.bundle import Bundle
from toolchain.errors import InputError

# File of a shrunk checkpoint.
OF_CHECKPOINT = "shrink.rows.json"

# Artefacts of a bundle.
OF_SHRINK, OF_HEAL = "learnt/shrink.json", "learnt/heal.json"


def write_learnt(file: Path, digests: Iterable[str]) -> None:
    """Write digests of rows (`Rows.text_digests`), sorted and each once."""
    write_json(file, sorted({*digests}))


def read_learnt(file: Path) -> list[str]:
    """Return the digests in a file; none if it does not exist.

    Raises:
        InputError: it is not a list of digests.
    """
    if not file.exists():
        return []
    advice = "Shrink or heal again."
    return _checked(read_json(file, what="the list of rows that were learnt from", advice=advice), file, advice)


def read_listed(bundle: Bundle, name: str, *, advice: str) -> list[str]:
    """Return the digests of rows in an artefact.

    Raises:
        InputError: see `Bundle.read`, or it is not a list of digests.
    """
    try:
        found = json.loads(bundle.read(name))
    except (ValueError, RecursionError):
        found = None
    return _checked(found, bundle.path / name, advice)


def _checked(found: object, file: Path, advice: str) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"{file}: broken: not a list of digests. {advice}")
    return found


def learnt_digests(bundle: Bundle, *, healed: bool = True) -> set[str]:
    """Return the digests of the rows that a bundle's model learnt from, or the stages of a cascade; none without any.

    Without `healed`, those of `heal` are left out: only INT8 graphs have its weights.

    Raises:
        InputError: see `read_listed`.
    """
    ends = (OF_SHRINK, OF_HEAL) if healed else (OF_SHRINK,)
    names = [name for name in bundle.manifest["artefacts"] if name.endswith(ends)]
    return {digest for name in names for digest in read_listed(bundle, name, advice="Shrink or heal again.")}
