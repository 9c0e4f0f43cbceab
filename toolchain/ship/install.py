"""Writes models into a Triton model repository, all of them or none; other models in the repository are kept."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.base.files import carry, exchange, let_everybody_read, recover, sync_tree, write_json
from toolchain.bundle import locked
from toolchain.errors import InputError
from toolchain.ship.config import CONFIG, parse, read_config, type_name

# The content of a new file: a path to copy from, or text or bytes to write.
Content = Path | str | bytes

# File in each version folder of a decoder: the labels in the order of the logits.
LABELS = "labels.json"

# File in the staging folder that lists the pending exchanges of model folders: model name -> inode of the new folder.
# It is written once all new folders are complete, so that the next run can finish the exchanges of an interrupted run.
EXCHANGES = "exchanges.json"

# Staging folder inside the repository. It is used if the repository is a mount point, because a rename from the parent
# folder into another file system fails. Triton takes a hidden folder for a model and then does not start, so the folder
# exists only during a run.
STAGING = ".toolchain.new"


@dataclass(frozen=True)
class Model:
    """One model of a repository.

    `config`: the text of its config.pbtxt.
    `files`: name -> content, for the version folder.
    `beside`: name -> content, for the files next to config.pbtxt.
    """

    name: str
    config: str
    files: dict[str, Content]
    beside: dict[str, Content] = field(default_factory=dict)


def write_models(models: list[Model], repository: Path, *, version: int) -> list[int]:
    """Write `models`, in order, as version `version`; return the numbers of the other versions, which are kept.

    A new repository appears in one step. In an existing one the folder of each model is exchanged as a whole, and the
    folder of the repository remains the same, so a container that mounted it sees the new models. If the repository is
    a mount itself, nothing outside of it is written. The next run finishes a run that was killed between exchanges.

    Raises:
        InputError: `repository` is a file or has no models in it, an existing model has other tensors or labels, or
            another run is writing the repository.
    """
    repository = repository.resolve()
    repository.parent.mkdir(parents=True, exist_ok=True)
    from_parent = not repository.is_dir() or _renames_from_parent(repository)
    with _locked(repository, beside=from_parent):
        _finish(repository)
        _check_repository(repository)
        for model in models:
            _check_interface(model, repository / model.name)
        staging = _beside(repository) if from_parent else repository / STAGING
        kept: set[int] = set()
        try:
            for model in models:
                kept |= _write(model, staging / model.name, repository / model.name, version)
            let_everybody_read(staging)  # the server runs as another user
            sync_tree(staging)
            if repository.exists():
                write_json(staging / EXCHANGES, {model.name: _inode(staging / model.name) for model in models})
            else:
                exchange(staging, repository)
        finally:
            _finish(repository)
    return sorted(kept)


def interrupted(repository: Path) -> bool:
    """Return whether a run is writing the repository, or was killed while it did.

    Some models may then be old and others new.
    """
    repository = repository.resolve()
    return (_beside(repository) / EXCHANGES).exists() or (repository / STAGING).exists()


def _finish(repository: Path) -> None:
    """Carry out the pending exchanges of model folders, and remove the staging folders."""
    for staging in (_beside(repository), repository / STAGING):
        ready = staging / EXCHANGES
        # If a volume was mounted on the repository in the meantime, nothing can be renamed into it from its parent
        # folder.
        if ready.exists() and repository.exists() and (staging.name == STAGING or _renames_from_parent(repository)):
            for name, inode in json.loads(ready.read_text()).items():
                recover(repository / name)
                if (staging / name).exists() and _inode(staging / name) == inode:
                    exchange(staging / name, repository / name)
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _locked(repository: Path, *, beside: bool) -> Iterator[None]:
    """Hold the lock of the repository's folder, and with `beside` also the lock file beside it.

    The lock file serialises runs while the folder does not exist yet. The lock of the folder itself (flock(2)) is also
    seen by a run that reaches the folder through another mount, where the two parents are different folders.

    Raises:
        InputError: another run holds one of the locks.
    """
    with locked(repository) if beside else contextlib.nullcontext():
        if not repository.is_dir():
            yield
            return
        descriptor = os.open(repository, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{repository}: another run is writing it. Wait for it, or choose another folder with -o."
                ) from None
            yield
        finally:
            os.close(descriptor)  # also releases the lock


def _renames_from_parent(repository: Path) -> bool:
    """Return whether a file can be renamed from the parent folder into the repository, which fails if that is a mount.

    The test renames a file, which Triton ignores. Comparing device numbers would not do: two bind mounts of one file
    system have the same number.
    """
    probe = repository.parent / f".{repository.name}.{os.getpid()}"
    try:
        probe.touch()
        probe.replace(repository / probe.name)
    except OSError:
        return False
    finally:
        for file in (probe, repository / probe.name):
            with contextlib.suppress(OSError):
                file.unlink()
    return True


def _beside(repository: Path) -> Path:
    return repository.parent / f".{repository.name}.new"


def _inode(folder: Path) -> int:
    """Return the inode of a folder, which a rename keeps."""
    return folder.stat().st_ino


def _check_repository(repository: Path) -> None:
    if not repository.exists():
        return
    if not repository.is_dir():
        raise InputError(f"{repository}: this is a file. Choose a folder with -o.")
    present = [path.name for path in repository.iterdir() if not path.name.startswith(".")]
    if present and not any(repository.glob(f"*/{CONFIG}")):
        raise InputError(f"{repository}: the folder contains {present[0]} and no model. Choose another folder with -o.")


def _check_interface(model: Model, folder: Path) -> None:
    """Refuse to change the inputs, outputs or labels of a model: its clients and older versions depend on them."""
    if not folder.exists():
        return
    old, new = read_config(folder / CONFIG), parse(model.config)
    interface = {part: [_tensors(getattr(one, part)) for one in (old, new)] for part in ("input", "output")}
    versions = _versions(folder)
    if versions and LABELS in model.files and (newest := folder / str(max(versions)) / LABELS).is_file():
        interface["label"] = [_labels(newest), _labels(model.files[LABELS])]
    for part, (before, after) in interface.items():
        if before != after:
            raise InputError(
                f"{folder}: its {part}s are {before}, but those of the new version are {after}. "
                "Choose another --name, or another folder with -o."
            )


def _tensors(values: Iterable[Any]) -> str:
    return ", ".join(sorted(f"{one.name} {type_name(one.data_type)} {list(one.dims)}" for one in values))


def _labels(content: Content) -> str:
    """Return the content of labels.json on one line, and content that is not JSON unchanged."""
    text = content.read_text(encoding="utf-8", errors="replace") if isinstance(content, Path) else str(content)
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return repr(text)


def _versions(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.glob("*") if path.name.isdecimal()}


def _write(model: Model, folder: Path, old: Path, version: int) -> set[int]:
    """Write a model into the new `folder`, and link the other versions from the `old` folder; return their numbers."""
    target = folder / str(version)
    target.mkdir(parents=True)
    (folder / CONFIG).write_text(model.config, encoding="utf-8")
    for parent, contents in ((target, model.files), (folder, model.beside)):
        for name, content in contents.items():
            if isinstance(content, Path):
                shutil.copyfile(content, parent / name)
            else:
                (parent / name).write_bytes(content.encode() if isinstance(content, str) else content)
    others = _versions(old) - {version}
    for other in others:
        for file in filter(Path.is_file, (old / str(other)).rglob("*")):
            carry(file, folder / file.relative_to(old))
    return others
