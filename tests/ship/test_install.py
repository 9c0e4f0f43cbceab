"""Models appear in a repository all together, whoever else writes it and whenever a run is killed."""

import shutil
import subprocess
import sys

import pytest

from toolchain.bundle import locked
from toolchain.errors import InputError
from toolchain.ship import install as placing
from toolchain.ship.config import config_text
from toolchain.ship.install import Model, interrupted, place
from toolchain.ship.lint import lint

NAMES = ("m_tokenizer", "m_classifier", "m_decoder", "m")


def models(text, *names):
    return [Model(name, config_text({"name": name, "backend": "python"}), {"model.py": text}) for name in names]


def texts(repository):
    return {path.parent.parent.name: path.read_text() for path in repository.glob("*/1/model.py")}


@pytest.fixture
def repository(tmp_path):
    place(models("old", *NAMES), tmp_path / "r", version=1)
    return tmp_path / "r"


KILLED = """
import os, pathlib, sys
from toolchain.ship import place as placing
from toolchain.ship.config import config_text
repository, names = pathlib.Path(sys.argv[1]), sys.argv[2].split()
left, after = int(sys.argv[3]), sys.argv[4] == "after"
exchange = placing.exchange
def counted(new, current):
    global left
    left -= 1
    if left < 0 and not after:
        os._exit(9)
    exchange(new, current)
    if left < 0:
        os._exit(9)
placing.exchange = counted
if sys.argv[5] == "within":
    placing._reaches = lambda repository: False
models = [placing.Model(name, config_text({"name": name, "backend": "python"}), {"model.py": "new"}) for name in names]
placing.place(models, repository, version=1)
"""


def kill(repository, left, when, where="beside"):
    command = [sys.executable, "-c", KILLED, str(repository), " ".join(NAMES), str(left), when, where]
    assert subprocess.run(command).returncode == 9


@pytest.mark.parametrize("where", ["beside", "within"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("left", range(len(NAMES)))
def test_a_run_that_is_killed_is_finished_by_the_next(repository, left, when, where):
    kill(repository, left, when, where)
    assert len(texts(repository)) == len(NAMES)  # each is there, the old one or the new one
    assert interrupted(repository)
    assert "a run was stopped among its models" in [one["what"] for one in lint(repository)["findings"]]
    place(models("other", "other"), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES, "new") | {"other": "other"}
    assert [path.name for path in repository.parent.iterdir()] == ["r"]
    assert not list(repository.glob(".*"))


def test_without_an_exchange_in_one_step_too(repository):
    """The old folder is out of the way and the new one not yet there."""
    kill(repository, 1, "before")
    (repository / NAMES[1]).rename(repository / f".{NAMES[1]}.old")
    place(models("other", "other"), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES, "new") | {"other": "other"}
    assert not list(repository.glob(".*"))


@pytest.mark.parametrize("where", ["beside", "within"])
def test_a_repository_that_was_removed_meanwhile_is_made_anew(repository, where):
    kill(repository, 2, "before", where)
    shutil.rmtree(repository)
    place(models("other", "other"), repository, version=1)
    assert texts(repository) == {"other": "other"}


def test_a_model_that_was_removed_meanwhile_stays_away(repository):
    kill(repository, 0, "after")
    shutil.rmtree(repository / NAMES[0])
    place(models("other", "other"), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES[1:], "new") | {"other": "other"}


def test_a_new_repository_that_was_not_finished_is_none(tmp_path):
    kill(tmp_path / "r", 0, "before")
    assert not (tmp_path / "r").exists()
    place(models("new", "m"), tmp_path / "r", version=1)
    assert texts(tmp_path / "r") == {"m": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_what_fails_before_all_is_made_changes_nothing(repository, monkeypatch):
    monkeypatch.setattr(placing, "sync_tree", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        place(models("new", *NAMES), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES, "old")
    assert [path.name for path in repository.parent.iterdir()] == ["r"]


def test_two_runs_do_not_write_one_repository(repository):
    with locked(repository), pytest.raises(InputError, match=r"r: another run is writing it\. Wait for it"):
        place(models("new", *NAMES), repository, version=1)
    assert texts(repository) == dict.fromkeys(NAMES, "old")


def test_nothing_outside_is_written_where_it_is_a_mount(repository, monkeypatch):
    monkeypatch.setattr(placing, "_reaches", lambda repository: False)
    before = repository.parent.stat().st_mtime_ns
    place(models("new", *NAMES, "more"), repository, version=1)
    assert texts(repository) == dict.fromkeys([*NAMES, "more"], "new")
    assert repository.parent.stat().st_mtime_ns == before
    assert not list(repository.glob(".*"))


@pytest.fixture
def volume(tmp_path):
    """An empty file system of its own in a folder that cannot be written."""
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


def test_a_volume_is_written_where_it_is_mounted(volume):
    place(models("old", *NAMES), volume, version=1)
    place(models("new", *NAMES), volume, version=1)
    assert texts(volume) == dict.fromkeys(NAMES, "new")
    assert not list(volume.glob(".*"))


def test_what_an_older_run_left_beside_a_volume_is_no_hindrance(repository, monkeypatch):
    kill(repository, 2, "before")
    monkeypatch.setattr(placing, "_reaches", lambda repository: False)
    place(models("other", "other"), repository, version=1)
    assert texts(repository)["other"] == "other"
    assert not interrupted(repository)


def test_two_runs_do_not_write_one_volume(repository):
    with placing._locked(repository, near=False), pytest.raises(InputError, match="another run is writing it"):
        place(models("new", *NAMES), repository, version=1)
    place(models("new", *NAMES), repository, version=1)


def decoder(labels, kind="TYPE_FP32"):
    config = {"name": "d", "backend": "python", "input": [{"name": "logits", "data_type": kind, "dims": [2]}]}
    return [Model("d", config_text(config), {"model.py": "", "labels.json": labels})]


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ('["no", "yes"]', "TYPE_FP16", r"its inputs are logits TYPE_FP32 \[2\], and .* TYPE_FP16 \[2\]\. Choose"),
        ('["yes", "no"]', "TYPE_FP32", r'd: its labels are \["no", "yes"\], and .* version \["yes", "no"\]\. Choose'),
        ('[ "no",\n "yes" ]', "TYPE_FP32", None),
    ],
)
def test_a_new_version_keeps_types_and_labels(tmp_path, labels, kind, message):
    """The labels are those of the newest version: an older one may have had others."""
    place(decoder('["no", "yes"]'), tmp_path / "r", version=10)
    shutil.copytree(tmp_path / "r/d/10", tmp_path / "r/d/9")
    (tmp_path / "r/d/9/labels.json").write_text('["yes", "no"]')
    if message is None:
        assert place(decoder(labels), tmp_path / "r", version=11) == [9, 10]
        return
    with pytest.raises(InputError, match=message):
        place(decoder(labels, kind), tmp_path / "r", version=11)
    assert sorted(path.name for path in (tmp_path / "r/d").iterdir()) == ["10", "9", "config.pbtxt"]
