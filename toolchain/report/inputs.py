"""What a report is made of: results, and the records that lie beside them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.bundle import MANIFEST, RESULTS
from toolchain.evaluation.results import Result, find_results

Record = dict[str, Any]

TUNED = "tune/tune.json"
"""Below a bundle's results: what `tune` found."""


@dataclass(frozen=True)
class Material:
    """Results of `eval`, and records of `tune` and `power`; each has its file in `file`."""

    results: list[Result]
    tuned: list[Record] = field(default_factory=list)
    powers: list[Record] = field(default_factory=list)


def find_material(places: Iterable[Path]) -> Material:
    """Read what is given: results, bundles and folders of them with what `tune` left there, records of `power`.

    Raises:
        InputError: a place holds none of it.
    """
    found = Material([])
    for place in places:
        record = _record(place) if place.is_file() else None
        if record is not None and {"samples", "components"} <= record.keys():
            found.powers.append(record)
        elif record is not None and {"products", "sets"} <= record.keys():
            found.tuned.append(record)
        else:
            found.results.extend(find_results([place]))
            beside = _record((place / RESULTS if (place / MANIFEST).exists() else place) / TUNED)
            found.tuned.extend([beside] if beside else [])
    return found


def _record(file: Path) -> Record | None:
    """Return a JSON object with its file's name, or None if there is none."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {**record, "file": str(file)} if isinstance(record, dict) else None
