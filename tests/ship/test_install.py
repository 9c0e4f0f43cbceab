"""Models appear in a repository all together, beside other writers and after a killed run."""

import os
import shutil
import subprocess
import sys

import pytest

from toolchain.bundle import locked
from toolchain.errors import InputError
from toolchain.ship import install
from toolchain.ship.config import config_text
from toolchain.ship.install import Model, interrupted, write_models
from toolchain.ship.lint import lint

NAMES = ("m_tokenizer", "m_classifier", "m_decoder", "m")


def models(text, *names):
    return [Model(name, config_text({"name": name, "backend": "python"}), {"model.py": text}) for name in names]


def texts(repository):
    return {path.parent.parent.name: path.read_text() for path in repository.glob("*/1/model.py")}


@pytest.fixture
def repository(tmp_path):
    write_models(models("old", *NAMES), tmp_path / "r", version=1)
    return tmp_path / "r"


KILLED = """
import os, pathlib, sys
from toolchain.ship import install
from toolchain.ship.config import config_text
repository, names = pathlib.Path(sys.argv[1]), sys.argv[2].split()
left, after = int(sys.argv[3]), sys.argv[4] == "after"
exchange = install.exchange
def counted(new, current):
    global left
    left -= 1
    if left < 0 and not after:
        os._exit(9)
    exchange(new, current)
    if left < 0:
        os._exit(9)
install.exchange = counted
if sys.argv[5] == "within":
    install._renames_from_parent = lambda repository: False
models = [install.Model(name, config_text({"name": name, "backend": "python"}), {"model.py": "new"}) for name in names]
install.write_models(models, repository, version=1)
"""


def kill(repository, left, when, where="beside"):
    command = [sys.executable, "-c", KILLED, str(repository), " ".join(NAMES), str(left), when, where]
    assert subprocess.run(command).returncode == 9


@pytest.mark.parametrize("where", ["beside", "within"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("left", range(len(NAMES)))
def test_the_next_run_finishes_a_killed_run(repository, left, when, where):
    kill(repository, left, when, where)
    assert len(texts(repository)) == len(NAMES)  # each is there, the old one or the new one
    assert interrupted(repository)
    assert "a run of `ship` was interrupted while it replaced models" in [
        one["what"] for one in lint(repository)["findings"]
    ]
    write_models(models("other", "other"), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES, "new") | {"other": "other"}
    assert [path.name for path in repository.parent.iterdir()] == ["r"]
    assert not list(repository.glob(".*"))


def test_the_next_run_finishes_a_killed_run_without_an_atomic_exchange(repository):
    """The old folder is moved away and the new one is not in place yet."""
    kill(repository, 1, "before")
    (repository / NAMES[1]).rename(repository / f".{NAMES[1]}.old")
    write_models(models("other", "other"), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES, "new") | {"other": "other"}
    assert not list(repository.glob(".*"))


@pytest.mark.parametrize("where", ["beside", "within"])
def test_a_repository_that_was_removed_since_is_made_anew(repository, where):
    kill(repository, 2, "before", where)
    shutil.rmtree(repository)
    write_models(models("other", "other"), repository, version=1)
    assert texts(repository) == {"other": "other"}


def test_a_model_that_was_removed_since_is_not_restored(repository):
    kill(repository, 0, "after")
    shutil.rmtree(repository / NAMES[0])
    write_models(models("other", "other"), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES[1:], "new") | {"other": "other"}


def test_an_unfinished_new_repository_does_not_appear(tmp_path):
    kill(tmp_path / "r", 0, "before")
    assert not (tmp_path / "r").exists()
    write_models(models("new", "m"), tmp_path / "r", version=1)
    assert texts(tmp_path / "r") == {"m": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_an_error_before_all_models_are_made_changes_nothing(repository, monkeypatch):
    monkeypatch.setattr(install, "sync_tree", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_models(models("new", *NAMES), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES, "old")
    assert [path.name for path in repository.parent.iterdir()] == ["r"]


def test_two_runs_cannot_write_one_repository(repository):
    with (
        locked(repository),
        pytest.raises(InputError, match=r"r: another run is writing this folder\. Wait until it has ended"),
    ):
        write_models(models("new", *NAMES), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES, "old")


def test_nothing_outside_of_a_mount_is_written(repository, monkeypatch):
    monkeypatch.setattr(install, "_renames_from_parent", lambda repository: False)
    before = repository.parent.stat().st_mtime_ns
    write_models(models("new", *NAMES, "more"), repository, version=1)
    assert texts(repository) == dict.fromkeys([*NAMES, "more"], "new")
    assert repository.parent.stat().st_mtime_ns == before
    assert not list(repository.glob(".*"))


@pytest.fixture
def volume(tmp_path):
    """Return an empty file system, mounted in a read-only folder."""
    outer, inner = tmp_path / "outer", tmp_path / "outer/models"
    mounted = []
    try:
        for folder in (outer, inner):
            folder.mkdir()
            if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
                pytest.skip("may not mount")
            mounted.append(folder)
        subprocess.run(["mount", "-o", "remount,ro", outer], check=True)
        yield inner
    finally:
        for folder in reversed(mounted):
            subprocess.run(["umount", folder], check=True)


def test_a_mounted_volume_is_written(volume):
    write_models(models("old", *NAMES), volume, version=1)
    write_models(models("new", *NAMES), volume, version=1)
    assert texts(volume) == dict.fromkeys(NAMES, "new")
    assert not list(volume.glob(".*"))


def test_staged_models_beside_a_volume_are_discarded(repository, monkeypatch):
    kill(repository, 2, "before")
    monkeypatch.setattr(install, "_renames_from_parent", lambda repository: False)
    write_models(models("other", "other"), repository, version=1)
    assert texts(repository)["other"] == "other"
    assert not interrupted(repository)


def test_two_runs_cannot_write_one_volume(repository):
    with install._locked(repository, beside=False), pytest.raises(InputError, match="another run is writing it"):
        write_models(models("new", *NAMES), repository, version=1)
    write_models(models("new", *NAMES), repository, version=1)


def decoder(labels, kind="TYPE_FP32"):
    config = {"name": "d", "backend": "python", "input": [{"name": "logits", "data_type": kind, "dims": [2]}]}
    return [Model("d", config_text(config), {"model.py": "", "labels.json": labels})]


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ('["no", "yes"]', "TYPE_FP16", r"its inputs are logits TYPE_FP32 \[2\], but .* TYPE_FP16 \[2\]\. Choose"),
        (
            '["yes", "no"]',
            "TYPE_FP32",
            r'd: its labels are \["no", "yes"\], but .* version are \["yes", "no"\]\. Choose',
        ),
        ('[ "no",\n "yes" ]', "TYPE_FP32", None),
    ],
)
def test_a_new_version_keeps_types_and_labels(tmp_path, labels, kind, message):
    """The labels of the newest version count: an older one may have had others."""
    write_models(decoder('["no", "yes"]'), tmp_path / "r", version=10)
    shutil.copytree(tmp_path / "r/d/10", tmp_path / "r/d/9")
    (tmp_path / "r/d/9/labels.json").write_text('["yes", "no"]')
    if message is None:
        assert write_models(decoder(labels), tmp_path / "r", version=11) == [9, 10]
        return
    with pytest.raises(InputError, match=message):
        write_models(decoder(labels, kind), tmp_path / "r", version=11)
    assert sorted(path.name for path in (tmp_path / "r/d").iterdir()) == ["10", "9", "config.pbtxt"]


def test_everybody_may_read_what_is_written_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        write_models(models("new", "m"), tmp_path / "made", version=1)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "made", *(tmp_path / "made").rglob("*"))}
    assert modes == {0o755, 0o644}
