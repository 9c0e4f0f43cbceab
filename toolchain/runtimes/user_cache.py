"""The user's cache of compiled models. Only the user can read and write it, and only the newest files are kept.

Models that are compiled for a machine are cached here, and never in a bundle. Each file begins with the digest of its
content, so that a truncated or accidentally changed file is ignored.
"""

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

from toolchain.base.files import write_bytes

log = logging.getLogger(__name__)

# Number of files that are kept in a folder. Each file is about as large as the weights of a model.
KEPT = 8


def cache_folder(name: str) -> Path | None:
    """Return the folder `name` in the user's cache; it is created with mode 0700 if necessary.

    The result is None if the folder cannot be created, or other users can access it. In this case, the caller must not
    cache anything.

    Source: XDG Base Directory Specification, XDG_CACHE_HOME.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = home if home.is_absolute() else Path.home() / ".cache"
    folder = base / "encoder-toolchain" / name
    try:
        base.mkdir(parents=True, exist_ok=True)
        for part in (folder.parent, folder):
            part.mkdir(mode=0o700, exist_ok=True)
            found = part.lstat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                log.warning("%s: others can use this folder, so nothing is cached. Make it private: chmod 700.", part)
                return None
    except OSError as error:
        log.info("%s: %s, so nothing is cached", folder, error.strerror)
        return None
    return folder


def read_cached(file: Path) -> bytes | None:
    """Return the content of a cached file, or None if the file is missing, truncated or changed."""
    try:
        digest, data = file.read_bytes().split(b"\n", 1)
    except (OSError, ValueError):
        return None
    if hashlib.sha256(data).hexdigest().encode() != digest:
        return None
    with suppress(OSError):
        os.utime(file)  # marks the file as recently used, because write_cached removes the oldest files
    return data


def write_cached(file: Path, data: bytes) -> None:
    """Write a file to the cache, and remove all but the KEPT newest files of its folder. Errors are only logged."""
    try:
        write_bytes(file, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        newest = sorted(file.parent.glob(f"*{file.suffix}"), key=lambda one: one.stat().st_mtime_ns, reverse=True)
        for old in newest[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s: cannot be saved (%s), so the next run compiles the model again", file, error.strerror)
