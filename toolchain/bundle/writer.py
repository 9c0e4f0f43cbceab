"""A bundle in the making, written all at once.

Its files are made in a sibling folder, which is exchanged with the old bundle when the last step is done. A step
whose inputs have the digest they had before is skipped and its files are carried over.
"""

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain.bundle import MANIFEST, SCHEMA, Bundle, Manifest, digest_of, locked, open_bundle
from toolchain.errors import InputError, UsageError
from toolchain.files import carry, exchange, recover, sha256_file, sha256_json, sync_tree, write_json


@dataclass
class BundleWriter:
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
        manifest["sha256"] = digest_of(manifest)
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
def open_writer(
    target: Path, *, force: bool = False, redo: str | None = None, log: Callable[[str], None] = lambda line: None
) -> Iterator[BundleWriter]:
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
    with locked(target):
        recover(target)
        for left in target.parent.glob(f".{glob.escape(target.name)}.new-*"):
            shutil.rmtree(left, ignore_errors=True)
        old = _readable(target, force=force, redo=redo)
        folder = target.parent / f".{target.name}.new-{os.getpid()}"
        folder.mkdir()
        try:
            yield BundleWriter(target, folder, old, log)
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
