"""The bundle: one folder with all that is needed to run, check and rebuild a model.

A bundle is read with its digests checked and written all at once: the files are made in a
sibling folder, which is exchanged with the old one when the last step is done. A step whose
inputs have the digest they had before is skipped and its files are carried over.
"""

import contextlib
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain.errors import InputError, UsageError
from toolchain.files import (
    carry,
    exchange,
    interrupted,
    recover,
    sha256_file,
    sha256_json,
    sync_tree,
    write_json,
)

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
        with contextlib.suppress(InputError, OSError), _locked(path.resolve()):  # or a build is just at it
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
    if _digest(manifest) != stated:
        raise InputError(f"{file}: changed since it was built. Build the bundle again with --force.")
    return dict(manifest)


def _digest(manifest: Manifest) -> str:
    return sha256_json({key: value for key, value in manifest.items() if key != "sha256"})


@dataclass
class Stage:
    """A bundle in the making: a sibling folder that becomes the bundle when all steps are done."""

    target: Path
    folder: Path
    old: Bundle | None
    log: Callable[[str], None]
    steps: dict[str, Any] = field(default_factory=dict)
    artefacts: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def step(
        self, name: str, inputs: dict[str, Any], run: Callable[[Path], dict[str, Any]], *, redo: bool = False
    ) -> dict[str, Any]:
        """Run one step, or carry its files over if `inputs` are what they were last time and not to `redo`.

        `run` writes files into the folder it is given and returns a JSON record about them.
        """
        key = sha256_json(inputs)
        known = self.old.manifest["steps"].get(name) if self.old else None
        if known and known["inputs_sha256"] == key and not redo and self.retain(name):
            self.skipped.append(name)
            return dict(known["record"])
        before = self._files()
        self.log(f"{name} ...")
        record = run(self.folder)
        made = sorted(self._files() - before)
        self.artefacts |= {file: sha256_file(self.folder / file) for file in made}
        self.steps[name] = {"inputs_sha256": key, "files": made, "record": record}
        return record

    def retain(self, name: str) -> bool:
        """Carry a step of the old bundle over as it is; False if its files are not all there."""
        assert self.old is not None
        known, artefacts = self.old.manifest["steps"][name], self.old.manifest["artefacts"]
        if not set(known["files"]) <= artefacts.keys():
            return False
        for file in known["files"]:
            carry(self.old.path / file, self.folder / file)
            self.artefacts[file] = artefacts[file]
        self.steps[name] = known
        return True

    def _files(self) -> set[str]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in files}

    def finish(self, about: dict[str, Any]) -> bool:
        """Write the manifest and put the folder in place; False if nothing had changed."""
        made = {"steps": self.steps, "artefacts": dict(sorted(self.artefacts.items()))}
        # Through JSON, so that it compares equal to what was read back: tuples become lists.
        manifest: Manifest = json.loads(json.dumps({"schema": SCHEMA, **about, **made}))
        if self.old and _same(self.old.manifest, manifest):
            os.utime(self.target / MANIFEST)  # it is the bundle that was asked for last
            return False
        manifest["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        manifest["sha256"] = _digest(manifest)
        write_json(self.folder / MANIFEST, manifest)
        replaced = {MANIFEST, *(self.old.manifest["artefacts"] if self.old else ())}
        _carry_others(self.target, self.folder, replaced)
        sync_tree(self.folder)
        exchange(self.folder, self.target)
        _carry_others(self.folder, self.target, replaced)  # what an evaluation wrote meanwhile
        return True


def _carry_others(source: Path, target: Path, replaced: set[str]) -> None:
    """Carry results, and what a person put beside the artefacts: whatever `target` has not."""
    for file in source.rglob("*"):
        name = file.relative_to(source)
        if (
            file.is_file()
            and str(name) not in replaced
            and not file.name.startswith(".")
            and not (target / name).exists()
        ):
            carry(file, target / name)


def _same(old: Manifest, new: Manifest) -> bool:
    made = {"created", "sha256"}
    return {key: value for key, value in old.items() if key not in made} == new


@contextlib.contextmanager
def stage(
    target: Path, *, force: bool = False, redo: str | None = None, log: Callable[[str], None] = lambda line: None
) -> Iterator[Stage]:
    """Open a new version of the bundle at `target`; nothing shows until `Stage.finish`.

    What is in its folder `redo` will be made again, and so may be broken; with `force` all of it may.

    Raises:
        InputError: `target` is there and no bundle, or another build holds it.
        UsageError: `target` is the current folder.
    """
    target = target.resolve()  # a link to a bundle stays a link
    if target == Path.cwd():
        raise UsageError(f"{target}: the current folder cannot be the bundle. Name one below it with -o.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        recover(target)
        for left in target.parent.glob(f".{glob.escape(target.name)}.new-*"):
            shutil.rmtree(left, ignore_errors=True)
        old = _readable(target, force=force, redo=redo)
        folder = target.parent / f".{target.name}.new-{os.getpid()}"
        folder.mkdir()
        try:
            yield Stage(target, folder, old, log)
        except OSError as error:
            error.filename = error.filename or str(target)  # a full disk does not say which
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _readable(target: Path, *, force: bool, redo: str | None) -> Bundle | None:
    if not target.exists():
        return None
    if not target.is_dir() or (any(target.iterdir()) and not _was_bundle(target)):
        raise InputError(f"{target}: is there and is no bundle. Choose another folder with -o.")
    if force or not (target / MANIFEST).exists():
        return None
    return open_bundle(target, redo=redo)


def _was_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle, if perhaps a broken one: only that may be replaced."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError:
        return False
    except ValueError:
        return True
    return isinstance(manifest, dict) and {"schema", "artefacts"} <= manifest.keys()


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    file = target.parent / f".{target.name}.lock"
    while True:
        with file.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{target}: another build is writing it. Wait for it, or choose another folder with -o."
                ) from None
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
