"""The user's cache: files of compiled models, which only the user can read and write, and only the newest are kept.

What is compiled for a machine never goes into a bundle. A file has the digest of its content, so that one which was cut
off or changed by accident is ignored.
"""

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

from toolchain.base.files import write_bytes

log = logging.getLogger(__name__)

# Files that are kept in a folder. Each has the size of a model's weights.
KEPT = 8


def cache_folder(name: str) -> Path | None:
    """Return the folder `name` in the user's cache, made with mode 0700; None if it cannot be had or is not private.

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
                log.warning("%s: others can use it, so nothing is cached. Let its owner alone use it: chmod 700.", part)
                return None
    except OSError as error:
        log.info("%s: %s, so nothing is cached", folder, error.strerror)
        return None
    return folder


def read_cached(file: Path) -> bytes | None:
    """Return the content of a file of the cache, or None if it is missing, cut off or changed."""
    try:
        digest, data = file.read_bytes().split(b"\n", 1)
    except (OSError, ValueError):
        return None
    if hashlib.sha256(data).hexdigest().encode() != digest:
        return None
    with suppress(OSError):
        os.utime(file)  # the files that were used last are kept
    return data


def write_cached(file: Path, data: bytes) -> None:
    """Write a file of the cache, and remove all but the KEPT newest of its folder. A failure is only logged."""
    try:
        write_bytes(file, hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
        newest = sorted(file.parent.glob(f"*{file.suffix}"), key=lambda one: one.stat().st_mtime_ns, reverse=True)
        for old in newest[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s: not saved (%s), so the next run compiles the model again", file, error.strerror)
