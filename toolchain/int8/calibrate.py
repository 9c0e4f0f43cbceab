"""ONNX graph and rows to ranges: one streaming pass, nothing padded, memory that does not grow."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain import graph
from toolchain.checkpoint.tokenize import Tokens, equal_length_batches
from toolchain.engine.cache import cache_text
from toolchain.errors import InputError
from toolchain.files import write_json, write_text
from toolchain.graph.smooth import MAX_EXPONENT, folds
from toolchain.int8.histogram import Histogram
from toolchain.int8.quantize import calibrated_tensors
from toolchain.progress import track
from toolchain.runtimes.device import cpu_threads
from toolchain.runtimes.ort import cannot_run, open_session
from toolchain.tensors import Array, Ranges, range_from_json

MAX_SLOTS = 512
"""Tokens a batch: its tapped activations stay in the processor's cache and in few megabytes."""


def collect(model: ir.Model, tokens: Tokens, *, where: str = "model.onnx") -> dict[str, Histogram]:
    """Run the graph over every row and return a histogram for each tensor that is quantised.

    Rows are batched by equal length: there is no padding whose values could enter a histogram.

    Raises:
        InputError: an activation is not finite; `where` names the graph.
    """
    histograms = {name: Histogram() for name in calibrated_tensors(model)}
    with ThreadPoolExecutor(cpu_threads()) as pool:
        for values in tapped(model, list(histograms), tokens):
            jobs = {name: pool.submit(histograms[name].add, value) for name, value in values.items()}
            for name, resolved in jobs.items():
                try:
                    resolved.result()
                except ValueError as error:
                    raise InputError(f"{where}: {name}: {error}. The checkpoint gives infinities or NaN.") from None
    return histograms


def channel_amax(model: ir.Model, tokens: Tokens) -> dict[str, NDArray[np.float32]]:
    """Return the largest |x| of each channel of the tensors that can be smoothed, float32 [hidden], by fold."""
    names = {fold.name: str(fold.value.name) for fold in folds(model)}
    found: dict[str, NDArray[np.float32]] = {}
    for values in tapped(model, list(names.values()), tokens):
        for fold, name in names.items():
            largest = np.abs(values[name]).max(axis=(0, 1))
            found[fold] = np.maximum(found[fold], largest) if fold in found else largest
    return found


def tapped(
    model: ir.Model, names: list[str], tokens: Tokens, *, text: str = "calibrating"
) -> Iterator[dict[str, Array]]:
    """Yield the named tensors of each batch of rows; a batch holds rows of one length, so nothing is padded."""
    session = open_session(graph.with_outputs(model, names))
    batches = list(equal_length_batches(tokens.lengths, max_slots=MAX_SLOTS))
    for rows in track(batches, total=len(batches), text=text):
        try:
            values = session.run(names, tokens.batch(rows))
        except Exception as error:
            raise cannot_run(b"", error) from error
        yield dict(zip(names, values, strict=True))


def calibrate(model: ir.Model, tokens: Tokens, *, method: str, where: str = "model.onnx") -> Ranges:
    """Return the range of each tensor that is quantised.

    Raises:
        InputError: there are no rows, or an activation is not finite.
    """
    if not len(tokens):
        raise InputError("calibration: no rows. Give a train split with at least one row.")
    return {name: histogram.range(method) for name, histogram in collect(model, tokens, where=where).items()}


def write_ranges(folder: Path, ranges: Ranges, about: dict[str, Any]) -> None:
    """Write calibration.json and calibration.cache; `about` says with what they were made.

    Its `smoothing` (graph/smooth.py) becomes one line of whole numbers a fold.
    """
    smoothing = {name: " ".join(map(str, powers)) for name, powers in about.get("smoothing", {}).items()}
    entries = {name: known.to_json() for name, known in ranges.items()}
    write_json(folder / "calibration.json", {**about, "smoothing": smoothing, "ranges": entries})
    # For the TensorRT that the header names; another version's builder skips it, so a build writes its own.
    write_text(folder / "calibration.cache", cache_text({name: known.amax for name, known in ranges.items()}))


def read_ranges(file: Path) -> tuple[Ranges, dict[str, Any]]:
    """Read the ranges of a calibration.json, and what it says of how they were made.

    Raises:
        InputError: it is missing, no JSON, a range is not finite and above zero, or it smooths by no whole numbers.
    """
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        entries = about.pop("ranges").items()
        smoothing = {name: [int(power) for power in text.split()] for name, text in about.get("smoothing", {}).items()}
        for key in ("keep", "row_sha256", "chosen_sha256"):
            if not all(isinstance(entry, str) for entry in about.get(key, [])):
                raise TypeError(f"{key} is no list of texts")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}. Give a calibration.json.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: no calibration ({error}). Give a calibration.json that `calibrate` made.") from None
    if any(abs(power) > MAX_EXPONENT for powers in smoothing.values() for power in powers):
        raise InputError(f"{file}: smooths by more than {MAX_EXPONENT} eighths of an octave. Calibrate again.")
    ranges = {name: range_from_json(name, value, where=str(file)) for name, value in entries}
    return ranges, {**about, "smoothing": smoothing}
