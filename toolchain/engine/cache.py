"""TensorRT 10's calibration cache: its text, and the JSON file beside it that states its origin.

The format, as TensorRT's builder writes it: a header `TRT-<version>-EntropyCalibration2`, then one line per tensor,
`<name>: <scale as big-endian float32 in 8 hexadecimal digits>`. The scale is amax / 127. The builder silently ignores a
cache of another version or algorithm, and never calibrates a tensor that the cache lacks, so both are checked here.
"""

import json
import math
import re
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

from toolchain.base.files import open_file, sha256_json, write_json, write_text
from toolchain.base.tensors import INT8_LEVELS, SMALLEST_SCALE
from toolchain.engine.api import version_number
from toolchain.errors import InputError
from toolchain.records.calibration import CacheOrigin, CacheRecord

ALGORITHM = "EntropyCalibration2"

# The version in the header if no TensorRT is installed.
DEFAULT_VERSION = "10.16.1.11"

SCALE = re.compile(r"[0-9a-f]{8}")


def cache_text(amax: Mapping[str, float], *, version: str = DEFAULT_VERSION) -> str:
    """Return the text of a cache for TensorRT `version`. `amax` maps a tensor's name to the |x| that maps to 127."""
    lines = [f"{name}: {struct.pack('>f', value / INT8_LEVELS).hex()}" for name, value in amax.items()]
    return "\n".join([header(version), *lines]) + "\n"


def header(version: str) -> str:
    """Return the first line of the caches that TensorRT `version` reads."""
    return f"TRT-{version_number(version)}-{ALGORITHM}"


def parse_cache(text: str, *, where: str) -> tuple[str, dict[str, float]]:
    """Return the header and the scale of each tensor.

    Raises:
        InputError: the header is missing, the last line is cut off, or a scale is not a number above zero.
    """
    lines = text.split("\n")
    if not lines[0].startswith("TRT-"):
        raise InputError(f"{where}: not a calibration cache: it begins with {lines[0][:40]!r}. Calibrate again.")
    if lines[-1] != "":
        raise InputError(f"{where}: the file is cut off after {lines[-1][:60]!r}. Calibrate again.")
    scales = {}
    for number, line in enumerate(lines[1:-1], start=2):
        name, separator, digits = line.rpartition(": ")  # names may hold colons
        scale = struct.unpack(">f", bytes.fromhex(digits))[0] if SCALE.fullmatch(digits) else math.nan
        if not separator or not SMALLEST_SCALE < scale < math.inf:
            raise InputError(f"{where}: line {number} is {line[:80]!r}, not a tensor and its scale. Calibrate again.")
        scales[name] = scale
    return lines[0], scales


def select_tensors(data: bytes, names: Collection[str], *, where: str) -> bytes:
    """Return a cache with the lines of these tensors only.

    Raises:
        InputError: the remaining text is not a cache.
    """
    first, *lines = data.decode("utf-8", "replace").split("\n")
    kept = "\n".join([first, *(line for line in lines if line.rpartition(": ")[0] in names), ""])
    parse_cache(kept, where=where)  # removed lines are not checked: scales of constants may be invalid
    return kept.encode()


def check_cache(
    data: bytes, *, where: str, version: str, needed: Collection[str], about: CacheRecord | None, fits: CacheOrigin
) -> None:
    """Refuse a cache that this builder would ignore, or that has another origin.

    Args:
        data: the cache.
        where: names the cache in messages.
        version: the version of TensorRT.
        needed: tensors without whose scale a GEMM would leave INT8.
        about: the JSON file beside the cache, or None without one.
        fits: the origin that the cache must have.

    Raises:
        InputError: the message names the difference.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{where}: not a calibration cache: it is not text. Calibrate again.") from None
    first, scales = parse_cache(text, where=where)
    if first != header(version):
        raise InputError(
            f"{where}: its header is {first}; TensorRT {version} reads {header(version)} only. Calibrate again."
        )
    if missing := [name for name in needed if name not in scales]:
        raise InputError(f"{where}: lacks a scale for {missing[0]} ({len(missing)} missing). Calibrate again.")
    if about is None:
        raise InputError(
            f"{where}: {Path(where).name}.json, which states the cache's origin, is missing. Calibrate again."
        )
    if about.get("cache_sha256") != cache_digest(data):
        raise InputError(f"{where}: the file changed since it was written. Calibrate again.")
    stated = dict(about)
    if differing := [key for key, value in fits.items() if stated.get(key) != value]:
        key = differing[0]
        raise InputError(
            f"{where}: made for {key} {stated.get(key)!r}; here it is {dict(fits)[key]!r}. Calibrate again."
        )


def write_cache(file: Path, data: bytes, about: CacheRecord) -> None:
    """Write a cache and FILE.json beside it, each completely or not at all."""
    write_text(file, data.decode("utf-8"))
    write_json(origin_file(file), about)


def cache_digest(data: bytes) -> str:
    """Return the SHA-256 of a cache's text, as the JSON file beside it states it."""
    return sha256_json(data.decode("utf-8"))


def read_cache(file: Path) -> tuple[bytes, CacheRecord | None]:
    """Return a cache and the record of its origin, None without one.

    Raises:
        InputError: the cache cannot be read, or the file beside it is not JSON.
    """
    try:
        with open_file(file) as opened:
            data = opened.read()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}. Give a calibration cache.") from None
    try:
        with open_file(origin_file(file)) as opened:
            about = json.loads(opened.read().decode())
    except FileNotFoundError:
        return data, None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{origin_file(file)}: not JSON ({error}). Calibrate again.") from None
    return data, cast(CacheRecord, about) if isinstance(about, dict) else None


def origin_file(file: Path) -> Path:
    """Return the path of the JSON file beside a cache."""
    return file.with_name(f"{file.name}.json")
