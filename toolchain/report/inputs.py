"""The inputs of a report: results, outcomes of gated builds, and records of other commands such as `tune`."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from toolchain.base.files import read_json
from toolchain.bundle import MANIFEST, RESULTS, open_bundle
from toolchain.errors import InputError
from toolchain.evaluation.deployment import GATE
from toolchain.evaluation.results import find_results, load_result
from toolchain.records.check import find_fault
from toolchain.records.deployment import Deployment
from toolchain.records.kernels import SavedExplainedTarget
from toolchain.records.plain import printable_json
from toolchain.records.power import SavedPowerRecord
from toolchain.records.result import Result
from toolchain.records.sweep import SavedSweepRecord
from toolchain.records.tune import SavedTuneRecord

log = logging.getLogger(__name__)

# Path of the record of `tune`, in the folder of a bundle's results.
TUNED = "tune/tune.json"

# Names in the folder of a sweep: the record that `sweep` writes when it ends, and the folder of its cells.
SWEPT, CELLS = "sweep.json", "cells"

# Paths of the records of `explain --target`, in the folder of a bundle's results.
KERNELS = "kernels/*.json"


@dataclass(frozen=True)
class Sweep:
    """The record of a `toolchain sweep`, and the results of its finished cells by the names of the cells."""

    record: SavedSweepRecord
    results: dict[str, Result]


@dataclass(frozen=True)
class Material:
    """All that a report shows. Each record has the path of its file as `file`.

    `results` are from `eval`, and include those of a sweep's cells. `tuned`, `powers`, `kernels` and `sweeps` are
    records of `tune`, `power`, `explain --target` and `sweep`. `deployments` are outcomes of gated builds, each with
    the path of its file.
    """

    results: list[Result]
    tuned: list[SavedTuneRecord] = field(default_factory=list)
    powers: list[SavedPowerRecord] = field(default_factory=list)
    deployments: list[tuple[str, Deployment]] = field(default_factory=list)
    kernels: list[SavedExplainedTarget] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)

    @property
    def apart(self) -> list[Result]:
        """The results that are not part of a sweep."""
        swept = {result["file"] for sweep in self.sweeps for result in sweep.results.values()}
        return [result for result in self.results if result["file"] not in swept]


def find_material(places: Iterable[Path]) -> Material:
    """Read all that a report shows from the given places.

    A place is a result, a record of `power`, `tune` or `sweep`, the folder of a sweep, a bundle, or a folder of
    results. Records of other commands in a bundle or a folder are read too.

    Raises:
        InputError: a place is none of these, or contains no results.
    """
    found = Material([])
    for place in places:
        file = place / SWEPT if (place / SWEPT).is_file() else place
        record = _record(file) if file.is_file() else None
        if record is not None and {"cells", "fronts"} <= record.keys():
            found.sweeps.append(sweep := _sweep(file, record))
            found.results.extend(sweep.results.values())
        elif record is not None and {"samples", "components"} <= record.keys():
            found.powers.append(cast("SavedPowerRecord", record))
        elif record is not None and {"products", "sets"} <= record.keys():
            found.tuned.append(cast("SavedTuneRecord", record))
        elif (place / CELLS).is_dir():
            raise InputError(
                f"{place}: the sweep in this folder is unfinished. Run `toolchain sweep` again to continue it."
            )
        else:
            results = find_results([place])
            found.results.extend(results)
            folder = place / RESULTS if (place / MANIFEST).exists() else place
            beside, gate = _record(folder / TUNED), _gate(place, folder / GATE, results)
            found.tuned.extend([cast("SavedTuneRecord", beside)] if beside else [])
            found.kernels.extend(current_kernels(folder, _artefacts(place)))
            found.deployments.extend([(str(folder / GATE), gate)] if gate else [])
    return found


def _sweep(file: Path, record: dict[str, Any]) -> Sweep:
    """Return the sweep of a record, with the results of its cells read from their files.

    Raises:
        InputError: the record or a result is damaged.
    """
    if fault := find_fault(record, SavedSweepRecord):
        raise InputError(f"{file}: the record is broken: {fault}. Run the sweep again.")
    known = cast("SavedSweepRecord", record)
    return Sweep(
        known, {cell["name"]: load_result(file.parent / cell["result"]) for cell in known["cells"] if cell["result"]}
    )


def _gate(place: Path, file: Path, results: list[Result]) -> Deployment | None:
    """Return the outcome of the gated build in a file of a bundle or of a folder of results, or None.

    The result is also None, with a warning, if a file that the build judged is missing or has changed since.
    """
    answer = cast("Deployment | None", _object(file))
    if answer is None:
        return None
    known: dict[str, str | None] = {one["artefact"]["file"]: one["artefact"]["sha256"] for one in results}
    if (place / MANIFEST).exists():
        known = {**open_bundle(place, check_files=False).manifest["artefacts"]}
    if all("sha256" in one and known.get(one["file"]) == one["sha256"] for one in answer["candidates"]):
        return answer
    log.warning(
        "%s: left out, because a file that the gate judged has changed. Run the gate again: "
        "toolchain build %s --max-drop POINTS",
        file,
        place,
    )
    return None


def _artefacts(place: Path) -> dict[str, str] | None:
    """Return file name -> SHA-256 of the artefacts of the bundle at `place`, or None if `place` is not a bundle."""
    manifest = _object(place / MANIFEST)
    return None if manifest is None else manifest.get("artefacts")


def current_kernels(folder: Path, artefacts: Mapping[str, str] | None) -> Iterator[SavedExplainedTarget]:
    """Yield the records of `explain --target` in a folder of results.

    A record about graphs that are no longer among the bundle's `artefacts` is left out, with a warning.
    """
    for record in (_record(file) for file in sorted(folder.glob(KERNELS))):
        if record is None or "graphs" not in record:
            continue
        known = cast("SavedExplainedTarget", record)
        made_from = [item for one in known["graphs"] for item in one.get("made_from", {}).items()]
        if artefacts is None or all(artefacts.get(file) == digest for file, digest in made_from):
            yield known
        else:
            log.warning(
                "%s: left out, because the bundle was built again since. Run `toolchain explain --target %s` again.",
                known["file"],
                known["target"],
            )


def _record(file: Path) -> dict[str, Any] | None:  # any JSON object; the caller finds out from its keys what it is
    """Return the JSON object in a file, with the file's path as its key `file`; None if there is no such object."""
    record = _object(file)
    return None if record is None else {**record, "file": str(file)}


def _object(file: Path) -> dict[str, Any] | None:  # any JSON object
    """Return the JSON object in a file, or None if the file is missing or does not contain a JSON object."""
    try:
        record = read_json(file, what="record", advice="Give a record of tune or power.")
    except InputError:
        return None
    return printable_json(record) if isinstance(record, dict) else None
