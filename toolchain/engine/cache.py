"""TensorRT 10's calibration cache: its text, and the JSON file beside it that states its origin.

The format, as TensorRT's builder writes it: a header `TRT-<version>-EntropyCalibration2`, then one line per tensor,
`<name>: <scale as big-endian float32 in 8 hexadecimal digits>`. The scale is amax / 127. The builder silently ignores a
cache of another version or algorithm, and never calibrates a tensor that the cache lacks. So this module checks both.
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

# TensorRT version in the header of a bundle's calibration.cache, which is written before a machine to build on is
# known.
DEFAULT_VERSION = "10.16.1.11"

SCALE = re.compile(r"[0-9a-f]{8}")


def cache_text(amax: Mapping[str, float], *, version: str = DEFAULT_VERSION) -> str:
    """Return the text of a cache for TensorRT `version`. `amax`: tensor name -> the |x| that INT8's 127 stands for."""
    lines = [f"{name}: {struct.pack('>f', value / INT8_LEVELS).hex()}" for name, value in amax.items()]
    return "\n".join([header(version), *lines]) + "\n"


def header(version: str) -> str:
    """Return the first line that a cache must have so that TensorRT `version` reads it."""
    return f"TRT-{version_number(version)}-{ALGORITHM}"


def parse_cache(text: str, *, where: str) -> tuple[str, dict[str, float]]:
    """Parse the text of a cache; return its header, and tensor name -> scale. `where` names the cache in messages.

    Raises:
        InputError: the header is missing, the last line is cut off, or a scale is not a number above zero.
    """
    lines = text.split("\n")
    if not lines[0].startswith("TRT-"):
        raise InputError(
            f"{where}: this is not a calibration cache: it begins with {lines[0][:40]!r}. Calibrate again."
        )
    if lines[-1] != "":
        raise InputError(f"{where}: the file is cut off after {lines[-1][:60]!r}. Calibrate again.")
    scales = {}
    for number, line in enumerate(lines[1:-1], start=2):
        name, separator, digits = line.rpartition(": ")  # names may contain colons
        scale = struct.unpack(">f", bytes.fromhex(digits))[0] if SCALE.fullmatch(digits) else math.nan
        if not separator or not SMALLEST_SCALE < scale < math.inf:
            raise InputError(f"{where}: line {number} is {line[:80]!r}, not a tensor and its scale. Calibrate again.")
        scales[name] = scale
    return lines[0], scales


def select_tensors(data: bytes, names: Collection[str], *, where: str) -> bytes:
    """Return a copy of a cache that has only the scales of the tensors `names`.

    Raises:
        InputError: what remains is not a valid cache.
    """
    first, *lines = data.decode("utf-8", "replace").split("\n")
    kept = "\n".join([first, *(line for line in lines if line.rpartition(": ")[0] in names), ""])
    parse_cache(kept, where=where)  # checks only the kept lines, because scales of constants may be invalid
    return kept.encode()


def check_cache(
    data: bytes, *, where: str, version: str, needed: Collection[str], about: CacheRecord | None, fits: CacheOrigin
) -> None:
    """Refuse a cache that TensorRT would ignore, that lacks scales, or that has another origin than `fits`.

    Args:
        data: the content of the cache.
        where: names the cache in messages.
        version: the version of TensorRT.
        needed: the tensors that need a scale; without it, a GEMM would not run in INT8.
        about: the content of the JSON file beside the cache, or None if there is no such file.
        fits: the origin that `about` must state, such as the model's digest.

    Raises:
        InputError: the cache does not fit; the message says why.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{where}: this is not a calibration cache: it is not text. Calibrate again.") from None
    first, scales = parse_cache(text, where=where)
    if first != header(version):
        raise InputError(
            f"{where}: its header is {first}, and TensorRT {version} reads only {header(version)}. Calibrate again."
        )
    if missing := [name for name in needed if name not in scales]:
        raise InputError(
            f"{where}: the cache lacks a scale for {missing[0]} ({len(missing)} missing). Calibrate again."
        )
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
            f"{where}: the cache was made with {key} = {stated.get(key)!r}, but this build has {dict(fits)[key]!r}. "
            "Calibrate again."
        )


def write_cache(file: Path, data: bytes, about: CacheRecord) -> None:
    """Write a cache to `file`, and its origin to FILE.json beside it; each file completely or not at all."""
    write_text(file, data.decode("utf-8"))
    write_json(origin_file(file), about)


def cache_digest(data: bytes) -> str:
    """Return the SHA-256 of a cache's text, which the JSON file beside the cache has as `cache_sha256`."""
    return sha256_json(data.decode("utf-8"))


def read_cache(file: Path) -> tuple[bytes, CacheRecord | None]:
    """Return the bytes of a cache, and the record in the JSON file beside it, which is None if there is no such file.

    Raises:
        InputError: the cache cannot be read, or the file beside it is not JSON.
    """
    try:
        with open_file(file) as opened:
            data = opened.read()
    except OSError as error:
        raise InputError(f"{file}: the file cannot be read: {error.strerror}. Give a calibration cache.") from None
    try:
        with open_file(origin_file(file)) as opened:
            about = json.loads(opened.read().decode())
    except FileNotFoundError:
        return data, None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{origin_file(file)}: the file is not JSON ({error}). Calibrate again.") from None
    return data, cast(CacheRecord, about) if isinstance(about, dict) else None


def origin_file(file: Path) -> Path:
    """Return the path of the JSON file beside a cache."""
    return file.with_name(f"{file.name}.json")
