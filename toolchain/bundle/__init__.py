"""The bundle: one folder with all that is needed to run, check and rebuild a model; digests are checked."""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.errors import InputError, UsageError
from toolchain.files import interrupted, recover, sha256_file, sha256_json

SCHEMA = 1
MANIFEST = "bundle.json"
RESULTS = "results"
BUILD_FOLDER = Path("engines/build")

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A folder whose files have the digests that its manifest names."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Return the path of an artefact.

        Raises:
            InputError: the bundle has no such artefact.
        """
        if name not in self.manifest["artefacts"]:
            models = [name for name in self.manifest["artefacts"] if name.endswith(".onnx")]
            raise InputError(
                f"{self.path}: has no {name}. It has {', '.join(models)}; build it with the precision you need."
            )
        return self.path / name

    @property
    def name(self) -> str:
        """What a server calls the model, where nobody says otherwise: the checkpoint's last name."""
        last = Path(str(self.manifest["model"]["id"])).name.lower()
        return re.sub(r"[^a-z0-9]+", "-", last).strip("-") or "model"

    @property
    def digest(self) -> str:
        """The digest that stands for every artefact; `--trust` pins it."""
        return str(self.manifest["sha256"])


def open_bundle(path: Path, *, trust: str | None = None, check_files: bool = True, redo: str | None = None) -> Bundle:
    """Read a bundle and check the digest of every file in it but those of the folder `redo`, or of bundle.json alone.

    Raises:
        InputError: it is no bundle, of another schema, a file differs from its digest, or the
            whole differs from `trust`.
    """
    if interrupted(path):
        with contextlib.suppress(InputError, OSError), locked(path.resolve()):  # or a build is just at it
            recover(path)
    manifest = _read_manifest(path)
    if trust is not None and manifest["sha256"] != trust:
        raise InputError(
            f"{path}: digest {manifest['sha256']} is not the trusted {trust}. "
            "Get the bundle again from where you trust it."
        )
    for name, digest in manifest["artefacts"].items() if check_files else ():
        file = path / name
        if redo and name.startswith(f"{redo}/"):
            continue
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{path}: names {name}, which is outside of it. Get the bundle again from its maker.")
        if not file.is_file():
            raise InputError(f"{file}: missing. Build the bundle again with --force.")
        if sha256_file(file) != digest:
            raise InputError(f"{file}: changed since it was built. Build the bundle again with --force.")
    return Bundle(path, manifest)


def last_bundle(folder: Path = BUILD_FOLDER) -> Path:
    """Return the bundle that was built last below `folder`.

    Raises:
        UsageError: there is none.
    """
    found = [path for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
    found.sort(key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise UsageError(f"{folder}: no bundle here. Name one, or make one first: toolchain build --precision int8.")
    return found[-1].parent


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        stated = manifest["sha256"]
        schema = manifest["schema"]
        _ = manifest["artefacts"], manifest["steps"]
    except FileNotFoundError:
        raise InputError(f"{path}: no bundle: it has no {MANIFEST}. Give a folder that `build` made.") from None
    except NotADirectoryError:
        raise InputError(f"{path}: a file, not a bundle. Give a folder that `build` made.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: broken ({error}). Build the bundle again with --force.") from None
    if schema != SCHEMA:
        raise InputError(f"{file}: schema {schema}, this version reads {SCHEMA}. Build it again.")
    if digest_of(manifest) != stated:
        raise InputError(f"{file}: changed since it was built. Build the bundle again with --force.")
    return dict(manifest)


def digest_of(manifest: Manifest) -> str:
    """Return the digest that stands for every artefact; its own place is left out."""
    return sha256_json({key: value for key, value in manifest.items() if key != "sha256"})


def take(descriptor: int, target: Path) -> None:
    """Take the lock of an open file or folder, which whoever writes `target` holds until it is closed.

    Raises:
        InputError: somebody else holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{target}: another run is writing it. Wait for it, or choose another folder with -o."
        ) from None


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of whoever writes the bundle, or another folder of ours, at `target`.

    Raises:
        InputError: somebody else holds it.
    """
    file = target.parent / f".{target.name}.lock"
    while True:
        with file.open("w") as lock:
            take(lock.fileno(), target)
            # Whoever held it before may have removed the file that was opened here: then try again.
            if _is(file, lock.fileno()):
                try:
                    yield
                finally:
                    file.unlink(missing_ok=True)
                return


def _is(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
