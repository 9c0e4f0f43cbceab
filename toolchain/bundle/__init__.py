"""The bundle: one folder with everything that is needed to run, check and rebuild a model, with digests."""

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from toolchain.base.files import (
    check_digest,
    interrupted,
    open_listed,
    read_checked,
    read_json,
    recover,
    sha256_json,
    sha256_open,
)
from toolchain.errors import InputError, UsageError
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.bundle import Manifest, QuantizedGemms, QuantizedView, QuantizeRecord, StepRecord
from toolchain.records.check import find_fault

log = logging.getLogger(__name__)

SCHEMA = 1
MANIFEST = "bundle.json"
RESULTS = "results"
BUILD_FOLDER = Path("engines/build")

# engines/build/NAME is three folders deep.
DEPTH = 3

# Ends of the names of graphs and of their weights.
GRAPH_FILES = (".onnx", ".onnx.data")

# What is said of a bundle to a command that takes none of its kind.
LM_ONLY = "a bundle of a language model, which build, generate, eval, verify and explain take. Choose one of them."
NO_LM = "not a bundle of a language model. Build one with --task lm."

# Long enough for a lock whose holder is just removing it, short enough that a second build is refused at once.
LOCK_S = 0.1


@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened: its folder, and its manifest. Only files that the manifest lists belong to it."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Return the path of an artefact.

        Raises:
            InputError: the bundle lacks the artefact.
        """
        if name not in self.manifest["artefacts"]:
            models = [name for name in self.manifest["artefacts"] if name.endswith(".onnx")]
            raise InputError(
                f"{self.path}: the bundle has no {name}, only {', '.join(models)}. "
                "Build it with the precision that you need."
            )
        return self.path / name

    def read(self, name: str) -> bytes:
        """Return the bytes of an artefact, which have its digest. Nobody can change them after the check.

        Raises:
            InputError: the bundle lacks the artefact, or it differs from its digest.
        """
        return read_checked(self.file(name), self.manifest["artefacts"][name])

    def copy(self, name: str, target: Path) -> None:
        """Write the bytes of an artefact to the new file `target`.

        Raises:
            InputError: the bundle lacks the artefact, or it differs from its digest.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_listed(self.file(name)) as file, target.open("x+b") as made:
            shutil.copyfileobj(file, made)
            made.seek(0)
            check_digest(self.file(name), sha256_open(made), self.manifest["artefacts"][name])

    def check(self, *, leaving: Container[str] = ()) -> None:
        """Read every artefact and compare it with its digest, apart from those that are checked when they are used.

        Raises:
            InputError: a file is missing, not a regular file, or differs from its digest.
        """
        for name, digest in self.manifest["artefacts"].items():
            if name not in leaving:
                with open_listed(self.path / name) as file:
                    check_digest(self.path / name, sha256_open(file), digest)

    @property
    def texts(self) -> list[str]:
        """The artefacts that transformers reads: those in the folder itself that are not graphs or their weights."""
        return [name for name in self.manifest["artefacts"] if "/" not in name and not name.endswith(GRAPH_FILES)]

    @property
    def is_cascade(self) -> bool:
        """Whether a first stage answers before its model."""
        return "cascade" in self.manifest

    @property
    def is_lm(self) -> bool:
        """Whether its model is a language model."""
        return "lm" in self.manifest

    def require_one_model(self, command: str) -> None:
        """Refuse a cascade for a command that takes one model.

        Raises:
            UsageError: this is a cascade.
        """
        if self.is_cascade:
            raise UsageError(f"{command}: {self.path} is a cascade, and this takes one model. Give one of its stages.")

    @property
    def name(self) -> str:
        """The default name of the model on a server: the last part of the checkpoint's name."""
        last = Path(str(self.manifest["model"]["id"])).name.lower()
        return re.sub(r"[^a-z0-9]+", "-", last).strip("-") or "model"

    @property
    def digest(self) -> str:
        """The digest of the manifest, and so of every artefact; `--trust` pins it."""
        return str(self.manifest["sha256"])


def open_bundle(
    path: Path,
    *,
    trust: str | None = None,
    check_files: bool = True,
    redo: str | None = None,
    lm: bool | None = False,
) -> Bundle:
    """Read a bundle and check its digests.

    Args:
        path: the bundle's folder.
        trust: the digest that the bundle must have.
        check_files: False checks the digest of bundle.json alone; `Bundle.check` does the rest.
        redo: a folder in the bundle whose files are not checked, because they will be made again.
        lm: whether the caller takes the bundle of a language model; None takes it and any other.

    Raises:
        InputError: the folder is not a bundle, or of the other kind, or of another schema, a file differs from its
            digest, or the bundle's digest is not `trust`.
    """
    if interrupted(path):
        with (
            contextlib.suppress(InputError, OSError),
            locked(path.resolve()),
        ):  # a build that holds the lock recovers it
            recover(path)
    manifest = _read_manifest(path)
    if trust is not None and manifest["sha256"] != trust:
        raise InputError(
            f"{path}: the digest {manifest['sha256']} is not the trusted {trust}. "
            "Get the bundle again from a source that you trust."
        )
    for name in manifest["artefacts"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(
                f"{path}: the manifest names {name}, which is outside the bundle. Get the bundle again from its maker."
            )
    bundle = Bundle(path, manifest)
    if lm is not None and bundle.is_lm is not lm:
        raise InputError(f"{path}: {LM_ONLY if bundle.is_lm else NO_LM}")
    if check_files:
        bundle.check(leaving=[name for name in manifest["artefacts"] if redo and name.startswith(f"{redo}/")])
    return bundle


def quantized_gemms(steps: Mapping[str, StepRecord], precision: str) -> QuantizedGemms | None:
    """Return what the step `quantize` recorded of the graph for TensorRT; None unless the precision is quantized.

    Raises:
        InputError: there is no such record.
    """
    if precision not in QUANTIZED:
        return None
    if "quantize" not in steps:
        raise InputError(f"{MANIFEST}: it has no record of the quantization. Build the bundle again with --force.")
    return typed_view(steps["quantize"]["record"])[1]


def typed_view(record: QuantizeRecord) -> tuple[str, QuantizedView]:
    """Return the graph for TensorRT in the record of the step `quantize`: its file, and what was quantized."""
    return next((file, view) for file, view in record["views"].items() if view["target"] == "tensorrt")


def last_bundle(folder: Path = Path(), *, quiet: bool = False) -> Path:
    """Return the bundle that was built last, in `folder` or below it, and log which one it is unless `quiet`.

    Raises:
        UsageError: there is no bundle.
    """
    found = max(manifests_below(folder), key=lambda path: path.stat().st_mtime_ns, default=None)
    if found is None:
        raise UsageError(f"{folder.resolve()}: there is no bundle here. Name one, or build one first: toolchain build.")
    if not quiet:
        log.info("%s: the bundle built last here", found.parent)
    return found.parent


def manifests_below(folder: Path) -> Iterator[Path]:
    """Yield the manifests in a folder and at most DEPTH folders below it, not in hidden ones."""
    for place, names, files in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        names[:] = [name for name in names if not name.startswith(".")] if len(parts) < DEPTH else []
        if MANIFEST in files:
            names.clear()  # the first stage of a cascade is a bundle inside of it
            yield Path(place) / MANIFEST


def _read_manifest(path: Path) -> Manifest:
    file, rebuild = path / MANIFEST, "Build the bundle again with --force."
    if path.is_file():
        raise InputError(f"{path}: a file, not a bundle. Give a folder that `build` made.")
    if not file.exists() and (path / "config.json").exists():
        raise InputError(f"{path}: this is a checkpoint, not a bundle. Build a bundle from it: toolchain build {path}.")
    if not file.exists():
        raise InputError(f"{path}: not a bundle, because it has no {MANIFEST}. Give a folder that `build` made.")
    manifest = read_json(file, what="the manifest", advice=rebuild, follow=False)
    if not isinstance(manifest, dict) or not {"schema", "sha256", "artefacts", "steps"} <= manifest.keys():
        raise InputError(f"{file}: broken, because it lacks a key. {rebuild}")
    if manifest["schema"] != SCHEMA:
        raise InputError(f"{file}: schema {manifest['schema']}, this version reads {SCHEMA}. Build it again.")
    if fault := find_fault(manifest, Manifest, whole=False):
        raise InputError(f"{file}: broken: {fault}. {rebuild}")
    if digest_of(cast(Manifest, manifest)) != manifest["sha256"]:
        raise InputError(f"{file}: changed since it was built. {rebuild}")
    return cast(Manifest, manifest)


def digest_of(manifest: Manifest) -> str:
    """Return the digest of a manifest without its own key `sha256`."""
    return sha256_json({key: value for key, value in manifest.items() if key != "sha256"})


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock for writing the bundle, or another folder of ours, at `target`. It ends with the process.

    Raises:
        InputError: another process, or another call in this one, holds it.
    """
    file = target.parent / f".{target.name}.lock"
    # A soft lock is a file that outlives a process that was killed.
    lock = FileLock(file, timeout=LOCK_S, poll_interval=LOCK_S / 5, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{target}: another run is writing it. Wait for it, or choose another folder with -o."
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # FileLock checks that the file which it has locked still exists
        lock.release()
