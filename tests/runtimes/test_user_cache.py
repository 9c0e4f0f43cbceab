"""Only the user can read the cache, what was cut off is not read, and the newest files are kept."""

import os

import pytest

from toolchain.runtimes import user_cache
from toolchain.runtimes.user_cache import cache_folder, read_cached, write_cached


@pytest.fixture(autouse=True)
def cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_only_the_user_can_open_the_folder(cache_home):
    folder = cache_folder("openvino")
    assert folder == cache_home / "encoder-toolchain/openvino"
    assert [part.stat().st_mode & 0o777 for part in (folder.parent, folder)] == [0o700, 0o700]


def test_a_folder_that_others_can_use_is_not_used(caplog):
    cache_folder("openvino").chmod(0o770)
    assert cache_folder("openvino") is None
    assert "others can use this folder" in caplog.text


def test_a_link_in_its_place_is_not_used(cache_home):
    (cache_home / "elsewhere").mkdir(mode=0o700)
    (cache_home / "encoder-toolchain").symlink_to(cache_home / "elsewhere")
    assert cache_folder("openvino") is None


def test_without_a_place_nothing_is_cached(cache_home):
    (cache_home / "encoder-toolchain").write_text("a file")
    assert cache_folder("openvino") is None


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_what_was_changed_or_cut_off_is_not_read(tmp_path, damage):
    write_cached(tmp_path / "one.blob", b"a\nb\x00")
    assert read_cached(tmp_path / "one.blob") == b"a\nb\x00"
    (tmp_path / "one.blob").write_bytes(damage((tmp_path / "one.blob").read_bytes()))
    assert read_cached(tmp_path / "one.blob") is None
    assert read_cached(tmp_path / "none.blob") is None


def test_the_files_that_were_used_last_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(user_cache, "KEPT", 2)
    for number, name in enumerate(["a", "b"]):
        write_cached(tmp_path / f"{name}.blob", b"x")
        os.utime(tmp_path / f"{name}.blob", (number, number))
    read_cached(tmp_path / "a.blob")
    write_cached(tmp_path / "c.blob", b"x")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.blob", "c.blob"]
