"""TensorRT 10's calibration cache: its text, and the side-car that says what it was made from.

The format, as TensorRT's builder writes it: a header `TRT-<version>-EntropyCalibration2`, then one line a tensor,
`<name>: <scale as big-endian float32 in 8 hex digits>`, the scale being amax / 127. The builder passes over a cache
of another version or algorithm in silence, and never fills in a tensor that is missing, so both are checked here.
"""

import json
import math
import re
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from toolchain.engine.api import version_number
from toolchain.errors import InputError
from toolchain.files import sha256_json, write_json, write_text
from toolchain.tensors import INT8_LEVELS, SMALLEST_SCALE

ALGORITHM = "EntropyCalibration2"
DEFAULT_VERSION = "10.16.1.11"
"""Of the header where no builder is at hand."""

SCALE = re.compile(r"[0-9a-f]{8}")


def cache_text(amax: Mapping[str, float], *, version: str = DEFAULT_VERSION) -> str:
    """Return the cache of these ranges, tensor name -> |x| that maps to 127, for TensorRT `version`."""
    lines = [f"{name}: {struct.pack('>f', value / INT8_LEVELS).hex()}" for name, value in amax.items()]
    return "\n".join([header(version), *lines]) + "\n"


def header(version: str) -> str:
    """Return the first line of a cache that TensorRT `version` takes."""
    return f"TRT-{version_number(version)}-{ALGORITHM}"


def parse_cache(text: str, *, where: str) -> tuple[str, dict[str, float]]:
    """Return the header and the scale of each tensor.

    Raises:
        InputError: it has no header, its last line is not whole, or a scale is not a number above zero.
    """
    lines = text.split("\n")
    if not lines[0].startswith("TRT-"):
        raise InputError(f"{where}: no calibration cache: it begins with {lines[0][:40]!r}. Calibrate again.")
    if lines[-1] != "":
        raise InputError(f"{where}: cut off after {lines[-1][:60]!r}. Calibrate again.")
    scales = {}
    for number, line in enumerate(lines[1:-1], start=2):
        name, separator, digits = line.rpartition(": ")  # names may hold colons
        scale = struct.unpack(">f", bytes.fromhex(digits))[0] if SCALE.fullmatch(digits) else math.nan
        if not separator or not SMALLEST_SCALE < scale < math.inf:
            raise InputError(f"{where}: line {number} is {line[:80]!r}, not a tensor and its scale. Calibrate again.")
        scales[name] = scale
    return lines[0], scales


def only(data: bytes, names: Collection[str], *, where: str) -> bytes:
    """Return a cache with the lines of these tensors alone.

    Raises:
        InputError: it is no cache.
    """
    first, *lines = data.decode("utf-8", "replace").split("\n")
    kept = "\n".join([first, *(line for line in lines if line.rpartition(": ")[0] in names), ""])
    parse_cache(kept, where=where)  # of the others, constants may have scales that are none
    return kept.encode()


def check_cache(
    data: bytes, *, where: str, version: str, needed: Collection[str], about: Mapping[str, Any] | None, fits: Any
) -> None:
    """Refuse a cache that this builder would pass over, or that was made from something else.

    `needed` are the tensors without whose scale a product leaves INT8; `about` is the side-car, `fits` what it must
    say, both as `side_car` makes them.

    Raises:
        InputError: naming what differs.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{where}: no calibration cache: it is not text. Calibrate again.") from None
    first, scales = parse_cache(text, where=where)
    if first != header(version):
        raise InputError(
            f"{where}: its header is {first}, and TensorRT {version} takes {header(version)} only. Calibrate again."
        )
    if missing := [name for name in needed if name not in scales]:
        raise InputError(f"{where}: has no scale for {missing[0]} ({len(missing)} missing). Calibrate again.")
    if about is None:
        raise InputError(f"{where}: no side-car {Path(where).name}.json says what it was made from. Calibrate again.")
    if about.get("cache_sha256") != sha256_json(text):
        raise InputError(f"{where}: changed since it was written. Calibrate again.")
    if differing := [key for key, value in fits.items() if about.get(key) != value]:
        key = differing[0]
        raise InputError(f"{where}: made for {key} {about.get(key)!r}, this is {fits[key]!r}. Calibrate again.")


def write_cache(file: Path, data: bytes, about: Mapping[str, Any]) -> None:
    """Write a cache and its side-car FILE.json, each whole or not at all."""
    text = data.decode("utf-8")
    write_text(file, text)
    write_json(side_car_of(file), {**about, "cache_sha256": sha256_json(text)})


def read_cache(file: Path) -> tuple[bytes, dict[str, Any] | None]:
    """Return a cache and its side-car, None where it has none.

    Raises:
        InputError: the cache cannot be read, or its side-car is no JSON object.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}. Give a calibration cache.") from None
    try:
        about = json.loads(side_car_of(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return data, None
    except ValueError as error:
        raise InputError(f"{side_car_of(file)}: broken ({error}). Calibrate again.") from None
    return data, about if isinstance(about, dict) else None


def side_car_of(file: Path) -> Path:
    """Return the path of the JSON beside a cache."""
    return file.with_name(f"{file.name}.json")
