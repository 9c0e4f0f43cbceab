"""Files and folders: safe reading, SHA-256 digests, JSON, and atomic replacement."""

import ctypes
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from toolchain.errors import InputError, first_line

# The largest number of bytes that is read from a file with a token, a key or a certificate.
MAX_SECRET_BYTES = 1 << 20

# Constants of renameat2(2), from linux/fcntl.h and linux/fs.h.
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

# One encoder for all digests, because `json.dumps` would make a new encoder on each call.
_SORTED = json.JSONEncoder(sort_keys=True, default=str)

# The folder for private folders if no folder for temporary files is writable.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # the folder in it is private


def open_file(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading in binary mode.

    A FIFO or a device is refused, without waiting for it. With `follow=False`, a symbolic link is refused too.

    Raises:
        InputError: `path` is not a regular file.
        OSError: the file cannot be opened.
    """
    # With O_NONBLOCK, the call does not wait for a writer if the file is a FIFO. Regular files ignore the flag.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # ELOOP: a link that is not followed; ENXIO: a socket
            raise
        kind = "a symbolic link" if path.is_symlink() else "not a regular file"
        raise InputError(f"{path}: this is {kind}. Replace it with the file itself.") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: this is not a regular file. Replace it with a file, or name another file.")
    return os.fdopen(descriptor, "rb")


@contextmanager
def private_folder(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Yield a temporary folder that only this user can open; it contains `files`, a mapping of name to content."""
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError:  # no folder for temporary files is writable
        parent = _SHARED_MEMORY
    with tempfile.TemporaryDirectory(dir=parent) as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        yield Path(name)


def open_listed(path: Path) -> BinaryIO:
    """Open a file of a bundle for reading. A symbolic link is refused, because it may lead out of the bundle.

    Raises:
        InputError: the file is missing, or is not a regular file.
    """
    try:
        return open_file(path, follow=False)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: this file is missing. Build the bundle again with --force.") from None


def read_checked(path: Path, sha256: str) -> bytes:
    """Return the content of a bundle's file, after checking that its SHA-256 is `sha256`.

    Raises:
        InputError: the file has another digest; see also `open_listed`.
    """
    with open_listed(path) as file:
        data = file.read()
    check_digest(path, hashlib.sha256(data).hexdigest(), sha256)
    return data


def check_digest(path: Path, found: str, listed: str) -> None:
    """Raise an error if the digest of a bundle's file, `found`, is not the digest `listed` in its bundle.json.

    Raises:
        InputError: the digests differ.
    """
    if found != listed:
        raise InputError(f"{path}: changed since it was built. Build the bundle again with --force.")


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return sha256_open(file)


def sha256_open(file: BinaryIO) -> str:
    """Return the hex SHA-256 of an open file, from its current position to its end."""
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # BinaryIO has what it needs


def sha256_json(value: Any) -> str:
    """Return the hex SHA-256 of a JSON value. It does not depend on the order of keys."""
    return hashlib.sha256(_SORTED.encode(value).encode()).hexdigest()


def read_json(path: Path, *, what: str, advice: str, follow: bool = True) -> Any:
    """Return the JSON value in a UTF-8 file.

    `what` describes the file and `advice` says how to fix it; both are for the error message. For `follow`, see
    `open_file`.

    Raises:
        InputError: the file cannot be read, is not a regular file, or is not JSON.
    """
    try:
        with open_file(path, follow=follow) as file:
            return json.loads(file.read().decode())
    except OSError as error:
        raise InputError(f"{path}: {what} cannot be read: {error.strerror or first_line(error)}. {advice}") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are both ValueErrors
        raise InputError(f"{path}: {what} is not JSON: {first_line(error)}. {advice}") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to a file in UTF-8. The file is replaced atomically, as in `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a file. The file is replaced atomically, as in `writing`."""
    with writing(path) as file:
        file.write(data)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, open for writing, which replaces `path` when the block ends without an error.

    The replacement is atomic: other processes see either the old file or the complete new one, also after a power cut.
    If `path` is a pipe or a device, it is written to directly.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)  # left by a killed process with the same process id
    try:
        with beside.open("xb") as file:  # mode x does not follow a link that somebody else made
            yield file
        _sync(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to a file as indented JSON. The file is replaced atomically, as in `write_bytes`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def carry(source: Path, target: Path, *, link: bool = True) -> None:
    """Make `target` a hard link to `source`, or a copy if `link` is False or a hard link cannot be made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a new empty folder, which replaces `folder` when the block ends without an error.

    The caller must hold the lock of `folder`, because files that an earlier run left behind are removed first.
    """
    recover(folder)
    beside = folder.parent / f".{folder.name}.new"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        sync_tree(beside)
        exchange(beside, folder)
    except OSError as error:
        error.filename = error.filename or str(folder)  # a full disk raises an error without a file name
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # after the exchange, this folder is the old version


@contextmanager
def parents_of(path: Path) -> Iterator[None]:
    """Create the missing parent folders of `path`, and remove them again if they are empty at the end of the block."""
    absent = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # a folder that is not empty stays, as do its parents
            for folder in absent:
                folder.rmdir()


def let_everybody_read(folder: Path) -> None:
    """Set the file modes of a folder and everything below it to 755 (folders) and 644 (files)."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def sync_tree(folder: Path) -> None:
    """Flush `folder` and every file and folder below it to the disk (fsync), so that a power cut cannot lose them."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def exchange(new: Path, current: Path) -> None:
    """Exchange the folders `new` and `current`; if `current` does not exist, rename `new` to `current`.

    With renameat2(2) the exchange is atomic. If the kernel or the file system does not support it, `current` is first
    moved to `.<name>.old`. After a crash in the middle, `recover` moves it back.
    """
    new, current = new.resolve(), current.resolve()
    if not current.exists():
        new.rename(current)
    elif not _renameat2_exchange(new, current):
        kept = _kept(current)
        current.rename(kept)
        new.rename(current)
        kept.rename(new)
    _sync(current.parent)


def interrupted(current: Path) -> bool:
    """Return whether an `exchange` of the folder `current` is under way or was interrupted by a crash."""
    return _kept(current.resolve()).exists()


def recover(current: Path) -> None:
    """Repair the folder `current` after a crash interrupted an `exchange`: restore the old folder if it is missing."""
    current = current.resolve()
    kept = _kept(current)
    if kept.exists():
        if current.exists():
            shutil.rmtree(kept)
        else:
            kept.rename(current)


def _kept(current: Path) -> Path:
    return current.parent / f".{current.name}.old"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _renameat2_exchange(one: Path, other: Path) -> bool:
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))
