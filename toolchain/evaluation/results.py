"""Save and read results of `eval`: a JSON file for each, and beside it an .npz file with the predictions for each row.

With the predictions, any two results on the same rows can be compared row by row.
"""

import io
import logging
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np

from toolchain.base.files import open_file, read_json, sha256_file, sha256_json, write_bytes, write_json
from toolchain.bundle import MANIFEST, RESULTS, open_bundle
from toolchain.data.metrics import METRICS
from toolchain.errors import InputError
from toolchain.evaluation.compare import compare
from toolchain.heads.predictions import Predictions
from toolchain.records.check import find_fault
from toolchain.records.plain import printable_json
from toolchain.records.result import FileDigest, Result

log = logging.getLogger(__name__)

SCHEMA = 1

# Keys that every version of toolchain has written. Later versions have added other keys.
REQUIRED = {
    "task",
    "split",
    "n",
    "data_sha256",
    "model",
    "backend",
    "device",
    "precision",
    "variant",
    "artefact",
    "metrics",
    "metrics_ci95",
    "primary",
    "agreement",
    "latency_ms",
    "throughput_per_s",
    "peak_memory_mb",
    "energy",
    "environment",
    "created",
}


def save_result(folder: Path, stem: str, result: Result) -> Path:
    """Write a result to `stem`.json in a folder, and return the path of that file."""
    file = folder / f"{stem}.json"
    write_json(file, result)
    return file


def save_predictions(file: Path, found: Predictions) -> FileDigest:
    """Write row numbers, logits, references and predictions to an .npz file; return its name and SHA-256.

    The file is written whole or not at all.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    ids = np.arange(len(found.logits))
    np.savez(buffer, ids=ids, logits=found.logits, references=found.references, predictions=found.predicted)
    write_bytes(file, buffer.getvalue())
    return {"file": file.name, "sha256": sha256_file(file)}


def read_predictions(file: Path) -> Predictions | None:
    """Return the predictions that `save_predictions` wrote, or None if the file is missing or damaged."""
    try:
        with open_file(file) as opened, zipfile.ZipFile(opened) as parts:
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):  # could unpack to any size
                return None
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as arrays:
                logits = np.asarray(arrays["logits"], np.float32)
                return Predictions(arrays["references"], arrays["predictions"], logits)
    except (InputError, OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, RuntimeError):
        return None
    except (OverflowError, SyntaxError, zipfile.BadZipFile):  # damaged headers of numpy or zip files
        return None


def load_predictions(result: Result, *, of_reference: bool = False) -> Predictions:
    """Return the predictions of a result or, with `of_reference`, of the FP32 model that it was compared with.

    Raises:
        InputError: the file of predictions is missing or has changed, or the result's version wrote no such file.
    """
    holder = result["agreement"] if of_reference else result
    kept = holder.get("predictions") if isinstance(holder, dict) else None
    where = Path(result["file"])
    name, digest = (str(kept.get(key)) for key in ("file", "sha256")) if isinstance(kept, dict) else ("none", "")
    file = where.parent / Path(name).name
    found = read_predictions(file)
    if found is None or sha256_file(file) != digest:
        raise InputError(f"{where}: its predictions in {file.name} are missing or have changed. Evaluate again.")
    return found


def is_resolved(better: Result, other: Result) -> bool:
    """Return whether a result is better than another on the same rows by more than chance.

    That is so if the whole paired 95 % interval of the difference of their primary metric is above 0.

    Raises:
        InputError: the predictions of a result are missing, or the results are not of the same rows.
    """
    both = load_predictions(better), load_predictions(other)
    found = compare(*both, better["primary"], confidence=0.975, seed=better.get("seed", 0))
    return found.bounds_points[0] > 0


def load_result(file: Path) -> Result:
    """Return the result that `eval` wrote to a file.

    Raises:
        InputError: the file is missing, is not a result, or is damaged.
    """
    result = read_json(file, what="the result", advice="Give a result that `eval` wrote.")
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or not result.keys() >= REQUIRED:
        raise InputError(f"{file}: not a result of schema {SCHEMA}. Give one that `eval` wrote.")
    if fault := find_fault(result, Result, whole=False):
        raise InputError(f"{file}: the result is broken: {fault}. Evaluate again.")
    if result["primary"] not in (None, *METRICS):
        raise InputError(f"{file}: the metric {result['primary']!r} is unknown. Evaluate again.")
    return cast("Result", {**printable_json(result), "file": str(file)})  # its texts are shown in terminals


def find_results(places: Iterable[Path]) -> list[Result]:
    """Return the results in files of results, in folders of such files, and in bundles.

    A warning says how many results of a bundle are left out because the file that they measured has changed since.

    Raises:
        InputError: one of `places` contains no results, or a file is not a result.
    """
    found: list[Result] = []
    for place in places:
        artefacts = _artefacts(place) if (place / MANIFEST).exists() else None
        folder = place if artefacts is None else place / RESULTS
        files = [place] if place.is_file() or not place.exists() else sorted(folder.glob("*.json"))
        results = [load_result(file) for file in files]
        kept = [result for result in results if artefacts is None or _is_current(result, artefacts)]
        if len(kept) < len(results):
            log.warning(
                "%s: %d results are left out, because the files that they measured have changed. Evaluate again.",
                place,
                len(results) - len(kept),
            )
        if not kept:
            raise InputError(f"{place}: there are no results here. Make one: toolchain eval.")
        found += kept
    return found


def _artefacts(bundle: Path) -> dict[str, str]:
    """Return name -> digest of everything in a bundle that `eval` can measure: its artefacts and its checkpoint."""
    manifest = open_bundle(bundle, check_files=False).manifest
    checkpoint = manifest.get("model", {}).get("sha256")
    return manifest["artefacts"] | ({"checkpoint": sha256_json(checkpoint)} if checkpoint else {})


def _is_current(result: Result, artefacts: dict[str, str]) -> bool:
    """Return whether the file that a result measured is still unchanged in the bundle; True for a server's result."""
    name = result["artefact"]["file"]
    if name not in artefacts:
        return not name.endswith((".onnx", ".plan"))
    return artefacts[name] == result["artefact"]["sha256"]
