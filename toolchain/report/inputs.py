"""The inputs of a report: results, answers of gates, and records of `tune` and `power`."""

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

# The record of `tune`, below the results of a bundle.
TUNED = "tune/tune.json"

# The record of `sweep`, which it writes at its end, and the folder of its cells, both in its folder.
SWEPT, CELLS = "sweep.json", "cells"

# The records of `explain --target`, below the results of a bundle.
KERNELS = "kernels/*.json"


@dataclass(frozen=True)
class Sweep:
    """A record of `sweep`, and the results of its cells by their names."""

    record: SavedSweepRecord
    results: dict[str, Result]


@dataclass(frozen=True)
class Material:
    """Results of `eval`, and records of `tune`, `power` and `sweep`, each with its path in `file`; answers of gates.

    The results of a sweep's cells are among `results` too.
    """

    results: list[Result]
    tuned: list[SavedTuneRecord] = field(default_factory=list)
    powers: list[SavedPowerRecord] = field(default_factory=list)
    deployments: list[tuple[str, Deployment]] = field(default_factory=list)
    kernels: list[SavedExplainedTarget] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)

    @property
    def apart(self) -> list[Result]:
        """The results that belong to no sweep."""
        swept = {result["file"] for sweep in self.sweeps for result in sweep.results.values()}
        return [result for result in self.results if result["file"] not in swept]


def find_material(places: Iterable[Path]) -> Material:
    """Read results, bundles and folders of results with the record of `tune` in them, and records of `power`.

    Raises:
        InputError: a place contains none of these.
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
            raise InputError(f"{place}: the sweep here did not end. Call `toolchain sweep` again: it goes on.")
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
    """Return a sweep with the results of its cells.

    Raises:
        InputError: the record or a result is broken.
    """
    if fault := find_fault(record, SavedSweepRecord):
        raise InputError(f"{file}: broken: {fault}. Run the sweep again.")
    known = cast("SavedSweepRecord", record)
    return Sweep(
        known, {cell["name"]: load_result(file.parent / cell["result"]) for cell in known["cells"] if cell["result"]}
    )


def _gate(place: Path, file: Path, results: list[Result]) -> Deployment | None:
    """Return the answer of the gate of a bundle, or of a folder of results, if the artefacts that it judged are there.

    An answer about artefacts that have changed since is left out, with a warning.
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
        "%s: left out, because what it judged has changed. Judge again: toolchain build %s --max-drop POINTS",
        file,
        place,
    )
    return None


def _artefacts(place: Path) -> dict[str, str] | None:
    """Return file -> digest of the bundle at a place, or None if there is none."""
    manifest = _object(place / MANIFEST)
    return None if manifest is None else manifest.get("artefacts")


def current_kernels(folder: Path, artefacts: Mapping[str, str] | None) -> Iterator[SavedExplainedTarget]:
    """Yield the records of kernels in a folder of results, without those of graphs that a bundle no longer has."""
    for record in (_record(file) for file in sorted(folder.glob(KERNELS))):
        if record is None or "graphs" not in record:
            continue
        known = cast("SavedExplainedTarget", record)
        made_from = [item for one in known["graphs"] for item in one.get("made_from", {}).items()]
        if artefacts is None or all(artefacts.get(file) == digest for file, digest in made_from):
            yield known
        else:
            log.warning(
                "%s: left out, because the bundle was built again since. Make it again: toolchain explain --target %s.",
                known["file"],
                known["target"],
            )


def _record(file: Path) -> dict[str, Any] | None:  # any JSON object: its keys then show what it is
    """Return a JSON object with its path in `file`, or None if the file is missing or is something else."""
    record = _object(file)
    return None if record is None else {**record, "file": str(file)}


def _object(file: Path) -> dict[str, Any] | None:  # any JSON object
    """Return a JSON object, or None if the file is missing or is something else."""
    try:
        record = read_json(file, what="record", advice="Give a record of tune or power.")
    except InputError:
        return None
    return printable_json(record) if isinstance(record, dict) else None
