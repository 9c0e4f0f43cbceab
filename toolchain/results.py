"""Results: a JSON file and its logits beside it, so that any two can be compared row by row."""

import io
import json
import logging
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.bundle import MANIFEST, RESULTS, open_bundle
from toolchain.distance import Logits
from toolchain.errors import InputError
from toolchain.files import sha256_file, write_json

log = logging.getLogger(__name__)

SCHEMA = 1

REQUIRED = {"task", "split", "n", "data_sha256", "model", "backend", "device", "precision", "variant", "artefact",
            "metrics", "metrics_ci95", "primary", "agreement", "latency_ms", "throughput_per_s", "peak_memory_mb",
            "energy", "environment", "created"}  # fmt: skip

Result = dict[str, Any]


def save_result(folder: Path, stem: str, result: Result, logits: Logits) -> Path:
    """Write `stem`.npz with row ids and logits, then `stem`.json with its digest; return the latter."""
    arrays = folder / f"{stem}.npz"
    save_logits(arrays, logits)
    result["predictions"] = {"file": arrays.name, "sha256": sha256_file(arrays)}
    write_json(folder / f"{stem}.json", result)
    return folder / f"{stem}.json"


def save_logits(file: Path, logits: Logits) -> None:
    """Write row ids, int64 [rows], and logits, float32 [rows, classes]; never half of them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, ids=np.arange(len(logits)), logits=logits)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_bytes(buffer.getvalue())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def load_logits(file: Path) -> Logits | None:
    """Return the logits of a file that `save_logits` wrote, or None if there is none to read."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return np.asarray(arrays["logits"], np.float32)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def load_result(file: Path) -> Result:
    """Read a result.

    Raises:
        InputError: it is missing or is no result.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}. Give a result that `eval` wrote.") from None
    except ValueError:
        raise InputError(f"{file}: not JSON. Give a result that `eval` wrote.") from None
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or not result.keys() >= REQUIRED:
        raise InputError(f"{file}: no result of this schema. Give one that `eval` wrote.")
    return result


def find_results(places: Iterable[Path]) -> list[Result]:
    """Read results from files, and from bundles and folders that hold some.

    Of a bundle, results of artefacts that it has no longer are left out.

    Raises:
        InputError: a place holds none.
    """
    found: list[Result] = []
    for place in places:
        artefacts = open_bundle(place, check_files=False).manifest["artefacts"] if (place / MANIFEST).exists() else None
        folder = place if artefacts is None else place / RESULTS
        files = [place] if place.is_file() or not place.exists() else sorted(folder.glob("*.json"))
        results = [load_result(file) for file in files]
        kept = [result for result in results if artefacts is None or _is_current(result, artefacts)]
        if len(kept) < len(results):
            log.warning("%s: %d results of artefacts that are no more are left out", place, len(results) - len(kept))
        if not kept:
            raise InputError(f"{place}: no results here. Make one: toolchain eval.")
        found += kept
    return found


def _is_current(result: Result, artefacts: dict[str, str]) -> bool:
    name = result["artefact"]["file"]
    return name not in artefacts or artefacts[name] == result["artefact"]["sha256"]
