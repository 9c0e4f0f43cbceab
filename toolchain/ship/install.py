"""Models put into a repository: all of them or none, beside what is there already."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.bundle import locked, take
from toolchain.errors import InputError
from toolchain.files import carry, exchange, recover, sync_tree, write_json
from toolchain.ship.config import CONFIG, parse, read_config
from toolchain.ship.faults import type_name

Content = Path | str
"""A file to be copied, or a text."""

LABELS = "labels.json"
"""In each version of a decoder: what it calls each class."""

EXCHANGES = "exchanges.json"
"""In the folder that new models are made in, once all are: a model's name -> the inode of its folder."""

WITHIN = ".toolchain.new"
"""The folder that new models are made in where none beside the repository will do. Triton takes a hidden folder for a
model that does not load, and then does not start: it is there only while models are shipped."""


@dataclass(frozen=True)
class Model:
    """One model of a repository. `files` go into its version's folder, `beside` next to its configuration."""

    name: str
    config: str
    files: dict[str, Content]
    beside: dict[str, Content] = field(default_factory=dict)


def place(models: list[Model], repository: Path, *, version: int) -> list[int]:
    """Write `models` as `version`, in their order; return the other versions that were there and are kept.

    A new repository appears all at once. In one that is there each model's folder is exchanged as a whole, and the
    repository's own folder stays the same one: a container that has it mounted sees the new models. Where it is itself
    what is mounted, nothing outside it is written. A run that is killed among the exchanges is finished by the next.

    Raises:
        InputError: `repository` is a file or holds something else, its models take or give other tensors or labels, or
            another run is writing it.
    """
    repository = repository.resolve()
    repository.parent.mkdir(parents=True, exist_ok=True)
    near = not repository.is_dir() or _reaches(repository)
    with _locked(repository, near=near):
        _finish(repository)
        _check_place(repository)
        for model in models:
            _check_same(model, repository / model.name)
        workshop = _beside(repository) if near else repository / WITHIN
        kept: set[int] = set()
        try:
            for model in models:
                kept |= _write(model, workshop / model.name, repository / model.name, version)
            sync_tree(workshop)
            if repository.exists():
                write_json(workshop / EXCHANGES, {model.name: _inode(workshop / model.name) for model in models})
            else:
                exchange(workshop, repository)
        finally:
            _finish(repository)
    return sorted(kept)


def interrupted(repository: Path) -> bool:
    """Return whether models are being exchanged, or were when a run was killed: old ones may stand beside new ones.

    Or whether new ones are being made within the repository, or were.
    """
    repository = repository.resolve()
    return (_beside(repository) / EXCHANGES).exists() or (repository / WITHIN).exists()


def _finish(repository: Path) -> None:
    """Exchange the models that are ready and not yet in their place, and clear away what was made with them."""
    for workshop in (_beside(repository), repository / WITHIN):
        ready = workshop / EXCHANGES
        # What lies beside cannot be put into a volume that was mounted since.
        if ready.exists() and repository.exists() and (workshop.name == WITHIN or _reaches(repository)):
            for name, inode in json.loads(ready.read_text()).items():
                recover(repository / name)
                if (workshop / name).exists() and _inode(workshop / name) == inode:
                    exchange(workshop / name, repository / name)
        shutil.rmtree(workshop, ignore_errors=True)


@contextmanager
def _locked(repository: Path, *, near: bool) -> Iterator[None]:
    """Hold the lock beside the repository, where one can be, and that of the folder itself, which every mount shares.

    Raises:
        InputError: somebody else holds one of them.
    """
    with locked(repository) if near else contextlib.nullcontext():
        if not repository.is_dir():
            yield
            return
        descriptor = os.open(repository, os.O_RDONLY)
        try:
            take(descriptor, repository)
            yield
        finally:
            os.close(descriptor)


def _reaches(repository: Path) -> bool:
    """Return whether what is made beside the repository can be renamed into it: not so where it is a mount itself.

    A file is tried, which Triton does not look at; that two folders are of one device would not say it.
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
    """Return what a folder keeps when it is renamed."""
    return folder.stat().st_ino


def _check_place(repository: Path) -> None:
    if not repository.exists():
        return
    if not repository.is_dir():
        raise InputError(f"{repository}: is a file. Choose a folder with -o.")
    there = [path.name for path in repository.iterdir() if not path.name.startswith(".")]
    if there and not any(repository.glob(f"*/{CONFIG}")):
        raise InputError(f"{repository}: is there and is no model repository ({there[0]} is in it). Choose another.")


def _check_same(model: Model, place: Path) -> None:
    """Refuse to change what a model takes, gives and says: its clients, and its older versions, go by it."""
    if not place.exists():
        return
    old, new = read_config(place / CONFIG), parse(model.config)
    said = {what: [_tensors(getattr(one, what)) for one in (old, new)] for what in ("input", "output")}
    versions = _versions(place)
    if versions and LABELS in model.files and (newest := place / str(max(versions)) / LABELS).is_file():
        said["label"] = [_labels(newest), _labels(model.files[LABELS])]
    for what, (before, after) in said.items():
        if before != after:
            raise InputError(
                f"{place}: its {what}s are {before}, and those of the new version {after}. "
                "Choose another --name, or another folder with -o."
            )


def _tensors(values: Iterable[Any]) -> str:
    return ", ".join(sorted(f"{one.name} {type_name(one.data_type)} {list(one.dims)}" for one in values))


def _labels(content: Content) -> str:
    """Return the labels that a decoder reads, in one line; what is no JSON as it stands."""
    text = content.read_text(encoding="utf-8", errors="replace") if isinstance(content, Path) else content
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return repr(text)


def _versions(place: Path) -> set[int]:
    return {int(path.name) for path in place.glob("*") if path.name.isdecimal()}


def _write(model: Model, folder: Path, old: Path, version: int) -> set[int]:
    """Write a model into a new folder, with the other versions of the old one; return these."""
    target = folder / str(version)
    target.mkdir(parents=True)
    (folder / CONFIG).write_text(model.config, encoding="utf-8")
    for place, contents in ((target, model.files), (folder, model.beside)):
        for name, content in contents.items():
            if isinstance(content, Path):
                shutil.copyfile(content, place / name)
            else:
                (place / name).write_text(content, encoding="utf-8")
    others = _versions(old) - {version}
    for other in others:
        for file in filter(Path.is_file, (old / str(other)).rglob("*")):
            carry(file, folder / file.relative_to(old))
    return others
