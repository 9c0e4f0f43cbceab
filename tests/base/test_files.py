import errno
import hashlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolchain.base import files
from toolchain.errors import InputError


@pytest.fixture(params=["renameat2", "fall-back"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to exchange folders; the first as the system has it."""
    if request.param == "fall-back":
        monkeypatch.setattr(files, "_renameat2_exchange", lambda one, other: False)
    return str(request.param)


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@given(st.binary())
def test_sha256_file_is_that_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(data)
    assert files.sha256_file(path) == hashlib.sha256(data).hexdigest()


def test_sha256_json_ignores_key_order_and_nothing_else() -> None:
    one = files.sha256_json({"a": 1, "b": [1, 2]})
    assert one == files.sha256_json({"b": (1, 2), "a": 1})
    assert one != files.sha256_json({"a": 1, "b": [2, 1]})


def test_a_file_that_is_being_written_replaces_the_old_one_at_the_end_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(TypeError), files.writing(tmp_path / "file") as file:
        file.write("not bytes")  # type: ignore[arg-type]
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["file"], "old")
    with files.writing(tmp_path / "file") as file:
        file.write(b"new")
        assert (tmp_path / "file").read_text() == "old"
    assert (names(tmp_path), (tmp_path / "file").read_text()) == (["file"], "new")


def test_a_file_that_is_being_written_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / f".new.{os.getpid()}").symlink_to(tmp_path / "victim")
    files.write_text(tmp_path / "new", "text")
    assert ((tmp_path / "victim").read_text(), (tmp_path / "new").read_text()) == ("kept", "text")


@pytest.mark.parametrize("place", ["/dev/zero", "fifo", "folder", "socket"])
def test_only_regular_files_are_read(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for read in (files.open_file, lambda path: files.read_json(path, what="it", advice="Fix it.")):
            with pytest.raises(InputError, match=r"not a regular file\. (Give|Replace)"):
                read(Path(place))


def test_a_link_is_followed_only_if_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    with files.open_file(tmp_path / "link") as opened:
        assert opened.read() == b"x"
    with pytest.raises(InputError, match=r"link: this is a symbolic link\. Replace it with the file itself\."):
        files.open_file(tmp_path / "link", follow=False)


def test_a_private_folder_has_the_files_and_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    for broken in (False, True):
        if broken:
            monkeypatch.setattr(tempfile, "gettempdir", lambda: (_ for _ in ()).throw(FileNotFoundError("none")))
        with files.private_folder({"a": b"1", "b": b""}) as folder:
            assert {file.name: file.read_bytes() for file in folder.iterdir()} == {"a": b"1", "b": b""}
            assert folder.stat().st_mode & 0o077 == 0
        assert not folder.exists()


def test_a_device_is_written_and_stays_a_device() -> None:
    files.write_text(Path("/dev/null"), "text")
    assert Path("/dev/null").is_char_device()


def test_write_text_makes_folders_and_keeps_line_ends(tmp_path: Path) -> None:
    files.write_text(tmp_path / "new" / "file", "é\r\n")
    assert (tmp_path / "new" / "file").read_bytes() == b"\xc3\xa9\r\n"


@settings(max_examples=25)  # each waits for the disk
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")), st.lists))
def test_write_json_round_trips(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(path, value)
    assert json.loads(path.read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_write_json_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    files.write_json(tmp_path / "x.json", {"old": 1})
    monkeypatch.setattr(*((os, "fsync", fail) if call == "fsync" else (Path, "replace", fail)))
    with pytest.raises(OSError, match="Input/output"):
        files.write_json(tmp_path / "x.json", {"new": 2})
    assert names(tmp_path) == ["x.json"]
    assert (tmp_path / "x.json").read_text() == '{\n  "old": 1\n}\n'


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount(8) here")
    if done.returncode:
        pytest.skip(f"this user may not mount a tmpfs: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_full_disk_is_an_os_error_and_leaves_the_old_file(small_disk: Path) -> None:
    files.write_text(small_disk / "file", "old")
    with pytest.raises(OSError, match="No space left"):
        files.write_text(small_disk / "file", "new" * 1_000_000)
    assert names(small_disk) == ["file"]
    assert (small_disk / "file").read_text() == "old"


def test_carry_links(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("text")
    files.carry(tmp_path / "one", tmp_path / "deep" / "two")
    assert (tmp_path / "deep" / "two").samefile(tmp_path / "one")


def test_carry_copies_where_links_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    (tmp_path / "one").write_text("text")
    files.carry(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two").read_text() == "text"
    assert not (tmp_path / "two").samefile(tmp_path / "one")


def test_sync_tree_flushes_every_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "a", "text")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    files.sync_tree(tmp_path)
    assert sorted(flushed) == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "file")]


def test_exchange_swaps(tmp_path: Path, way: str) -> None:
    new, current = folder(tmp_path / "new", "new"), folder(tmp_path / "current", "old")
    files.exchange(new, current)
    assert ((current / "file").read_text(), (new / "file").read_text()) == ("new", "old")
    assert names(tmp_path) == ["current", "new"]


def test_exchange_with_nothing_there_moves(tmp_path: Path, way: str) -> None:
    files.exchange(folder(tmp_path / "new", "new"), tmp_path / "current")
    assert names(tmp_path) == ["current"]


def test_exchange_is_one_system_call_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, target: Path) -> None:
        pytest.fail("renamed instead")

    monkeypatch.setattr(Path, "rename", fail)
    files.exchange(folder(tmp_path / "new", "new"), folder(tmp_path / "current", "old"))
    assert (tmp_path / "current" / "file").read_text() == "new"


def test_exchange_through_a_link_changes_what_it_points_to(tmp_path: Path, way: str) -> None:
    real = folder(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(real)
    files.exchange(folder(tmp_path / "new", "new"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (real / "file").read_text() == "new"


def test_exchange_reports_other_errors(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        files.exchange(tmp_path / "absent", folder(tmp_path / "current", "old"))


@pytest.mark.parametrize(("crash_at", "left"), [(2, "old"), (3, "new")])
def test_recover_after_a_crash_in_the_fall_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int, left: str
) -> None:
    monkeypatch.setattr(files, "_renameat2_exchange", lambda one, other: False)
    renames, rename = iter(range(1, 9)), Path.rename

    def crash(self: Path, target: Path) -> Path:
        if next(renames) == crash_at:
            raise KeyboardInterrupt
        return rename(self, target)

    new, current = folder(tmp_path / "new", "new"), folder(tmp_path / "current", "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            files.exchange(new, current)
    assert files.interrupted(current)
    files.recover(current)
    assert (current / "file").read_text() == left
    assert not files.interrupted(current)


def test_recover_changes_nothing_else(tmp_path: Path) -> None:
    folder(tmp_path / "current", "old")
    files.recover(tmp_path / "current")
    files.recover(tmp_path / "absent")
    assert names(tmp_path) == ["current"]


def test_a_full_disk_names_the_folder_that_was_being_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as found, files.replacing(tmp_path / "made"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert found.value.filename == str(tmp_path / "made")
    assert list(tmp_path.iterdir()) == []
