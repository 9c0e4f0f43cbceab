"""The bundle: the folder that `toolchain build` writes, with everything that is needed to run and rebuild a model.

Its manifest, `bundle.json`, lists the artefacts (files that belong to the bundle) with their SHA-256 digests, and the
record of each step of the build.
"""

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

# Levels of subfolders that are searched for bundles: a build writes to engines/build/NAME, which is three levels deep.
DEPTH = 3

# Suffixes of ONNX graphs and of the files of their external weights.
GRAPH_FILES = (".onnx", ".onnx.data")

# Messages of a command that cannot use a bundle, because it has a language model or because it has none.
LM_ONLY = "this bundle has a language model. It can be used with build, generate, eval, verify and explain only."
NO_LM = "this bundle does not have a language model. Build one with `toolchain build --task lm`."

# Seconds to wait for a lock: enough if another process is just releasing it, but so short that a second build is
# refused at once.
LOCK_S = 0.1


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its manifest. A file that the manifest does not list is not an artefact."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Return the path of the artefact `name`.

        Raises:
            InputError: the manifest does not list the artefact.
        """
        if name not in self.manifest["artefacts"]:
            models = [name for name in self.manifest["artefacts"] if name.endswith(".onnx")]
            raise InputError(
                f"{self.path}: the bundle has no {name}, only {', '.join(models)}. "
                "Build the bundle again with the --precision that you need."
            )
        return self.path / name

    def read(self, name: str) -> bytes:
        """Return the content of an artefact. The returned bytes are the ones whose digest was checked.

        Raises:
            InputError: the bundle lacks the artefact, or its digest differs from the one in the manifest.
        """
        return read_checked(self.file(name), self.manifest["artefacts"][name])

    def copy(self, name: str, target: Path) -> None:
        """Copy an artefact to the new file `target`, and check the digest of the copy.

        Raises:
            InputError: the bundle lacks the artefact, or its digest differs from the one in the manifest.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_listed(self.file(name)) as file, target.open("x+b") as made:
            shutil.copyfileobj(file, made)
            made.seek(0)
            check_digest(self.file(name), sha256_open(made), self.manifest["artefacts"][name])

    def check(self, *, leaving: Container[str] = ()) -> None:
        """Compare every artefact with its digest in the manifest, except those named in `leaving`.

        Raises:
            InputError: an artefact is missing, is not a regular file, or has another digest.
        """
        for name, digest in self.manifest["artefacts"].items():
            if name not in leaving:
                with open_listed(self.path / name) as file:
                    check_digest(self.path / name, sha256_open(file), digest)

    @property
    def texts(self) -> list[str]:
        """Names of the artefacts that transformers reads, such as config.json and the files of the tokenizer.

        They lie directly in the bundle's folder, and are neither ONNX graphs nor the weights of such graphs.
        """
        return [name for name in self.manifest["artefacts"] if "/" not in name and not name.endswith(GRAPH_FILES)]

    @property
    def is_cascade(self) -> bool:
        """Whether this bundle is a cascade: a small first model answers the rows that it is confident about."""
        return "cascade" in self.manifest

    @property
    def is_lm(self) -> bool:
        """Whether the bundle's model is a language model."""
        return "lm" in self.manifest

    def require_one_model(self, command: str) -> None:
        """Raise an error if this bundle is a cascade; `command` is the command or option that needs a single model.

        Raises:
            UsageError: this bundle is a cascade.
        """
        if self.is_cascade:
            raise UsageError(
                f"{command}: {self.path} is a cascade, but only a bundle of a single model can be used here. "
                "Give the bundle of one of its stages."
            )

    @property
    def name(self) -> str:
        """The default name of the model on a server, made from the last part of the checkpoint's name or path."""
        last = Path(str(self.manifest["model"]["id"])).name.lower()
        return re.sub(r"[^a-z0-9]+", "-", last).strip("-") or "model"

    @property
    def digest(self) -> str:
        """The SHA-256 of the manifest, which itself lists the digest of every artefact; `--trust` takes this value."""
        return str(self.manifest["sha256"])


def open_bundle(
    path: Path,
    *,
    trust: str | None = None,
    check_files: bool = True,
    redo: str | None = None,
    lm: bool | None = False,
) -> Bundle:
    """Open a bundle and check its digests.

    Args:
        path: the bundle's folder.
        trust: the digest that the bundle must have (`Bundle.digest`); None accepts every digest.
        check_files: False checks the digest of bundle.json alone; `Bundle.check` checks the artefacts later.
        redo: a subfolder of the bundle whose files are not checked, because they will be made again.
        lm: True accepts only the bundle of a language model, False only bundles of other models, None both.

    Raises:
        InputError: the folder is not a bundle, `lm` does not accept its model, it has another schema, an artefact
            differs from its digest, or the bundle's digest is not `trust`.
    """
    if interrupted(path):
        # If a build holds the lock, it recovers the folder itself, so the error of `locked` is ignored.
        with (
            contextlib.suppress(InputError, OSError),
            locked(path.resolve()),
        ):
            recover(path)
    manifest = _read_manifest(path)
    if trust is not None and manifest["sha256"] != trust:
        raise InputError(
            f"{path}: the bundle's digest {manifest['sha256']} is not the trusted {trust}. "
            "Get the bundle again from a source that you trust."
        )
    for name in manifest["artefacts"]:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(
                f"{path}: the manifest lists {name}, a path outside the bundle's folder. "
                "Get the bundle again from a source that you trust."
            )
    bundle = Bundle(path, manifest)
    if lm is not None and bundle.is_lm is not lm:
        raise InputError(f"{path}: {LM_ONLY if bundle.is_lm else NO_LM}")
    if check_files:
        bundle.check(leaving=[name for name in manifest["artefacts"] if redo and name.startswith(f"{redo}/")])
    return bundle


def quantized_gemms(steps: Mapping[str, StepRecord], precision: str) -> QuantizedGemms | None:
    """Return the GEMMs that were quantized in a bundle's graph for TensorRT, as the step `quantize` recorded them.

    `steps` are the records in the manifest. The result is None if `precision` is not quantized (INT8 or FP8).

    Raises:
        InputError: the precision is quantized, and the manifest lacks the record.
    """
    if precision not in QUANTIZED:
        return None
    if "quantize" not in steps:
        raise InputError(f"{MANIFEST}: it lacks the record of the step quantize. Build the bundle again with --force.")
    return typed_view(steps["quantize"]["record"])[1]


def typed_view(record: QuantizeRecord) -> tuple[str, QuantizedView]:
    """Return the file name of the quantized graph for TensorRT, and what the step `quantize` recorded about it."""
    return next((file, view) for file, view in record["views"].items() if view["target"] == "tensorrt")


def last_bundle(folder: Path = Path(), *, quiet: bool = False) -> Path:
    """Return the folder of the bundle that was built last, in `folder` or below it, and log it unless `quiet`.

    Raises:
        UsageError: there is no bundle in `folder` or below it.
    """
    found = max(manifests_below(folder), key=lambda path: path.stat().st_mtime_ns, default=None)
    if found is None:
        raise UsageError(
            f"{folder.resolve()}: there is no bundle in this folder or below it. "
            "Give the folder of a bundle, or build one first: toolchain build."
        )
    if not quiet:
        log.info("%s: using this bundle, which was built last", found.parent)
    return found.parent


def manifests_below(folder: Path) -> Iterator[Path]:
    """Yield the path of each bundle.json in a folder and up to DEPTH levels below it, except in hidden folders."""
    for place, names, files in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        names[:] = [name for name in names if not name.startswith(".")] if len(parts) < DEPTH else []
        if MANIFEST in files:
            names.clear()  # a bundle inside this bundle, such as the first stage of a cascade, is not listed
            yield Path(place) / MANIFEST


def _read_manifest(path: Path) -> Manifest:
    file, rebuild = path / MANIFEST, "Build the bundle again with --force."
    if path.is_file():
        raise InputError(
            f"{path}: this is a file, but a bundle is a folder. Give a folder that `toolchain build` made."
        )
    if not file.exists() and (path / "config.json").exists():
        raise InputError(f"{path}: this is a checkpoint, not a bundle. Build a bundle from it: toolchain build {path}.")
    if not file.exists():
        raise InputError(
            f"{path}: not a bundle, because it has no {MANIFEST}. Give a folder that `toolchain build` made."
        )
    manifest = read_json(file, what="the manifest", advice=rebuild, follow=False)
    if not isinstance(manifest, dict) or not {"schema", "sha256", "artefacts", "steps"} <= manifest.keys():
        raise InputError(f"{file}: broken: it lacks schema, sha256, artefacts or steps. {rebuild}")
    if manifest["schema"] != SCHEMA:
        raise InputError(
            f"{file}: the manifest has schema {manifest['schema']}, but this version reads schema {SCHEMA}. {rebuild}"
        )
    if fault := find_fault(manifest, Manifest, whole=False):
        raise InputError(f"{file}: broken: {fault}. {rebuild}")
    if digest_of(cast(Manifest, manifest)) != manifest["sha256"]:
        raise InputError(f"{file}: changed since it was built. {rebuild}")
    return cast(Manifest, manifest)


def digest_of(manifest: Manifest) -> str:
    """Return the hex SHA-256 of a manifest without its key `sha256`, which stores this digest."""
    return sha256_json({key: value for key, value in manifest.items() if key != "sha256"})


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold an exclusive lock on the folder `target`, a bundle or another folder that a command writes.

    The lock is released at the end of the block, or when the process ends in any way.

    Raises:
        InputError: another process, or another call in this process, holds the lock.
    """
    file = target.parent / f".{target.name}.lock"
    # A soft lock would be a file that remains when its process is killed, so the folder would stay locked.
    lock = FileLock(file, timeout=LOCK_S, poll_interval=LOCK_S / 5, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{target}: another run is writing this folder. Wait until it has ended, or choose another folder with -o."
        ) from None
    try:
        yield
    finally:
        # Another process may be waiting for this file. If FileLock locks a file that was removed, it tries again.
        file.unlink(missing_ok=True)
        lock.release()
