"""The writer of a bundle, which replaces the old version atomically.

The files of the new version are made in a folder beside the bundle. The two folders are exchanged when the last step is
done, so other processes see either the old version or the new one. A step whose inputs have the same digest as before
is skipped, and its files are hard-linked or copied from the old version.
"""

import contextlib
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

from toolchain.base.files import carry, exchange, recover, sha256_file, sha256_json, sync_tree, write_json
from toolchain.bundle import MANIFEST, SCHEMA, Bundle, digest_of, locked, open_bundle
from toolchain.errors import InputError, UsageError
from toolchain.records.bundle import Manifest, StepRecord

# Type of the record of a step: a TypedDict of records/bundle.py.
Record = TypeVar("Record", bound=Mapping[str, Any])


@dataclass
class BundleWriter:
    """A new version of a bundle, which is made in `folder` and replaces the bundle when `finish` is called.

    `target` is the bundle's folder, and `folder` a temporary folder beside it. `old` is the version to replace; None if
    there is none, or if it is not read. `damaged` tells that files of the old version may differ from its manifest.
    """

    target: Path
    folder: Path
    old: Bundle | None
    log: Callable[[str], None]
    damaged: bool = False
    steps: dict[str, StepRecord] = field(default_factory=dict)
    artefacts: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def step(
        self, name: str, inputs: Mapping[str, Any], run: Callable[[Path], Record], *, redo: bool = False
    ) -> Record:
        """Run one step, or skip it and keep its old files; return its record.

        A step is skipped if `redo` is False and the digest of `inputs` is the same as in the old version.

        Args:
            name: the step's key in the manifest.
            inputs: everything that the step's files depend on, as JSON.
            run: writes the files into the folder that it is given, and returns the record.
            redo: True runs the step in any case.
        """
        key = sha256_json(inputs)
        known = self.old.manifest["steps"].get(name) if self.old else None
        if known and known["inputs_sha256"] == key and not redo and self.retain(name):
            self.skipped.append(name)
            return cast(Record, known["record"])
        before = self._files()
        self.log(f"{name} ...")
        record = run(self.folder)
        made = sorted(self._files() - before)
        self.artefacts |= {file: sha256_file(self.folder / file) for file in made}
        self.steps[name] = {"inputs_sha256": key, "files": made, "record": record}
        return record

    def retain(self, name: str) -> bool:
        """Take a step's files and record from the old version; return False if the old version lacks a file of it."""
        assert self.old is not None
        known, artefacts = self.old.manifest["steps"][name], self.old.manifest["artefacts"]
        if not set(known["files"]) <= artefacts.keys():
            return False
        for file in known["files"]:
            # Weights are copied, because onnx_ir refuses to read weights from a file with more than one hard link.
            carry(self.old.path / file, self.folder / file, link=not file.endswith(".onnx.data"))
            self.artefacts[file] = artefacts[file]
        self.steps[name] = known
        return True

    def _files(self) -> set[str]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)) for path in files}

    def finish(self, about: Mapping[str, Any], *, check: Callable[[Path], None] = lambda folder: None) -> bool:
        """Write the manifest and replace the old version; return False if nothing changed, so that the old one stays.

        Args:
            about: the keys of the manifest other than `schema`, `steps`, `artefacts`, `created` and `sha256`.
            check: called with the folder of the new version before it replaces the old one. It raises if the new
                version cannot be used.
        """
        made = {"steps": self.steps, "artefacts": dict(sorted(self.artefacts.items()))}
        # JSON turns tuples into lists, so that this manifest can be compared with a manifest from a file.
        manifest: Manifest = json.loads(json.dumps({"schema": SCHEMA, **about, **made}))
        if self.old and not self.damaged and _same(self.old.manifest, manifest):
            os.utime(self.target / MANIFEST)  # so that it counts as the bundle that was built last
            return False
        manifest["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        manifest["sha256"] = digest_of(manifest)
        write_json(self.folder / MANIFEST, manifest)
        replaced = {MANIFEST, *(self.old.manifest["artefacts"] if self.old else ())}
        _carry_others(self.target, self.folder, replaced)
        check(self.folder)
        sync_tree(self.folder)
        exchange(self.folder, self.target)
        _carry_others(self.folder, self.target, replaced)  # results that a command wrote after the first copy
        return True


def _carry_others(source: Path, target: Path, replaced: set[str]) -> None:
    """Link or copy to `target` the files of a bundle that are not artefacts, such as results, if they are not there.

    `replaced` are the names of the files to leave out: the manifest and the artefacts.
    """
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
    """Return whether two manifests are equal apart from the keys `created` and `sha256`."""
    made = {"created", "sha256"}
    return {key: value for key, value in old.items() if key not in made} == new


@contextlib.contextmanager
def open_writer(
    target: Path,
    *,
    force: bool = False,
    redo: str | None = None,
    log: Callable[[str], None] = lambda line: None,
    lm: bool = False,
) -> Iterator[BundleWriter]:
    """Yield a writer for a new version of the bundle in the folder `target`, and hold the bundle's lock meanwhile.

    Nothing changes in `target` before `BundleWriter.finish` is called.

    Args:
        target: the bundle's folder, which need not exist.
        force: True does not read the old version, which may then be broken; all steps are run.
        redo: a subfolder of the bundle that will be made again, whose files may therefore be broken.
        log: called with a line before each step that runs.
        lm: whether the new bundle has a language model.

    Raises:
        InputError: `target` exists and is not a bundle, its bundle is broken or does not fit `lm`, or another build is
            writing it.
        UsageError: `target` is the current folder.
    """
    target = target.resolve()  # if it is a link to a bundle, the link stays and the bundle is replaced
    if target == Path.cwd():
        raise UsageError(
            f"{target}: this is the current folder, which a bundle must not replace. Give another folder with -o."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target):
        recover(target)
        for left in target.parent.glob(f".{glob.escape(target.name)}.new-*"):
            shutil.rmtree(left, ignore_errors=True)
        old = _readable(target, force=force, redo=redo, lm=lm)
        folder = target.parent / f".{target.name}.new-{os.getpid()}"
        folder.mkdir()
        try:
            yield BundleWriter(target, folder, old, log, damaged=redo is not None)
        except OSError as error:
            error.filename = error.filename or str(target)  # a full disk raises an error without a file name
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _readable(target: Path, *, force: bool, redo: str | None, lm: bool) -> Bundle | None:
    """Return the old version of the bundle in `target`; None if there is none, or if `force` says not to read it.

    Raises:
        InputError: `target` is not a bundle, or `force` is False and the bundle is broken.
    """
    if not target.exists():
        return None
    require_bundle(target)
    if force or not (target / MANIFEST).exists():
        return None
    return open_bundle(target, redo=redo, lm=lm)


def require_bundle(target: Path) -> None:
    """Raise an error if `target` exists and is neither an empty folder nor a bundle. A broken bundle is accepted.

    Raises:
        InputError: `target` is something else, which a build must not replace.
    """
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or _was_bundle(target))):
        raise InputError(
            f"{target}: it exists and is not a bundle, so it is not replaced. Choose another folder with -o."
        )


def _was_bundle(folder: Path) -> bool:
    """Return whether a folder is a bundle, judged by its bundle.json alone. The bundle may be broken."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError:
        return False
    except ValueError:
        return True
    return isinstance(manifest, dict) and {"schema", "artefacts"} <= manifest.keys()
