"""Calibration: one pass of the float graph over the calibration rows, and the files that store its ranges.

A batch has rows of equal length, so nothing is padded. Values are counted in histograms, so memory does not grow with
the number of rows.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain import graph
from toolchain.base.files import write_json, write_text
from toolchain.base.processors import cpu_threads
from toolchain.base.progress import track
from toolchain.base.tensors import Array, Ranges, range_from_json
from toolchain.checkpoint.tokenize import Tokens, equal_length_batches
from toolchain.engine.cache import cache_text
from toolchain.errors import InputError
from toolchain.graph.fp16 import rounded_scale
from toolchain.graph.gemms import calibrated_tensors
from toolchain.graph.smooth import MAX_EXPONENT, Exponents, folds
from toolchain.int8.range_methods import Histogram
from toolchain.records.calibration import CalibrationAbout, CalibrationRecord
from toolchain.runtimes.ort import cannot_run, open_session

# Positions per batch, padding included. The activations of 512 positions take a few megabytes and stay in the
# processor's cache.
MAX_SLOTS = 512


@dataclass(frozen=True)
class Calibration:
    """The content of a calibration.json.

    `ranges` are the calibration ranges of the graph after smoothing with the exponents `smoothing`. `about` has the
    other keys, which say how the ranges were made.
    """

    ranges: Ranges
    smoothing: Exponents
    about: CalibrationAbout


def collect(model: ir.Model, tokens: Tokens, *, where: str = "model.onnx") -> dict[str, Histogram]:
    """Run the graph over every row; return name -> histogram of |x|, for each tensor that will be quantized.

    Raises:
        InputError: an activation is not finite. The message begins with `where`.
    """
    histograms = {name: Histogram() for name in calibrated_tensors(model)}
    with ThreadPoolExecutor(cpu_threads()) as pool:
        for values in stream_activations(model, list(histograms), tokens):
            jobs = {name: pool.submit(histograms[name].add, value) for name, value in values.items()}
            for name, job in jobs.items():
                try:
                    job.result()
                except ValueError as error:
                    raise InputError(
                        f"{where}: {name}: {error}, although the weights are finite. Give an earlier checkpoint."
                    ) from None
    return histograms


def channel_amax(model: ir.Model, tokens: Tokens) -> dict[str, NDArray[np.float32]]:
    """Return the largest |x| of each channel, float32 [hidden], by fold name, for each tensor that can be smoothed."""
    names = {fold.name: str(fold.value.name) for fold in folds(model)}
    found: dict[str, NDArray[np.float32]] = {}
    for values in stream_activations(model, list(names.values()), tokens):
        for fold, name in names.items():
            largest = np.abs(values[name]).max(axis=(0, 1))
            found[fold] = np.maximum(found[fold], largest) if fold in found else largest
    return found


def stream_activations(
    model: ir.Model, names: list[str], tokens: Tokens, *, text: str = "calibrating"
) -> Iterator[dict[str, Array]]:
    """Yield tensor name -> array for each batch of rows, as ONNX Runtime computes the tensors on the CPU.

    A batch holds rows of one length, so nothing is padded. `text` labels the progress bar.

    Raises:
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    session = open_session(graph.with_outputs(model, names))
    batches = list(equal_length_batches(tokens.lengths, max_slots=MAX_SLOTS))
    for rows in track(batches, total=len(batches), text=text):
        try:
            values = session.run(names, tokens.batch(rows))
        except Exception as error:
            raise cannot_run(b"", error) from error
        yield dict(zip(names, values, strict=True))


def calibrate(model: ir.Model, tokens: Tokens, *, method: str, where: str = "model.onnx") -> Ranges:
    """Return name -> calibration range, by the range method `method`, for each tensor that will be quantized.

    Raises:
        InputError: there are no rows, or an activation is not finite.
    """
    if not len(tokens):
        raise InputError("calibration: there are no rows. Give a train split with at least one row.")
    return {name: histogram.range(method) for name, histogram in collect(model, tokens, where=where).items()}


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write calibration.json and calibration.cache to `folder`.

    calibration.json has the measured amax of each tensor, and the scale in model.int8.onnx, which is rounded to
    float16. The cache has the scale amax / 127, unrounded, as float32. The smoothing exponents of a fold are one
    string.
    """
    ranges, smoothing = calibration.ranges, calibration.smoothing
    record: CalibrationRecord = {
        **calibration.about,
        "smoothing": {name: " ".join(map(str, powers)) for name, powers in smoothing.items()},
        "ranges": {
            name: {**known.to_json(), "scale": float(rounded_scale(np.array(known.scale)))}
            for name, known in ranges.items()
        },
    }
    write_json(folder / "calibration.json", record)
    # The header of the cache names TensorRT DEFAULT_VERSION. Other versions ignore the cache, so a build writes a cache
    # for its own version.
    write_text(folder / "calibration.cache", cache_text({name: known.amax for name, known in ranges.items()}))


def read_calibration(file: Path) -> Calibration:
    """Read a calibration.json. The key `scale` of a range is ignored, because the scale follows from amax.

    Raises:
        InputError: the file is missing or not JSON, a range is not finite or not above zero, or a smoothing exponent
            is not an integer or too large.
    """
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        entries = about.pop("ranges").items()
        smoothing = {name: [int(power) for power in text.split()] for name, text in about.pop("smoothing", {}).items()}
        for key in ("keep", "row_sha256", "chosen_sha256"):
            if not all(isinstance(entry, str) for entry in about.get(key, [])):
                raise TypeError(f"{key} is not a list of strings")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}. Give the path of a calibration.json.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        advice = "Give a calibration.json that `toolchain calibrate` made."
        raise InputError(f"{file}: the file is not a calibration ({error}). {advice}") from None
    if any(abs(power) > MAX_EXPONENT for powers in smoothing.values() for power in powers):
        raise InputError(f"{file}: a smoothing exponent is outside -{MAX_EXPONENT} to {MAX_EXPONENT}. Calibrate again.")
    return Calibration(
        {name: range_from_json(name, value, where=str(file)) for name, value in entries}, smoothing, about
    )
