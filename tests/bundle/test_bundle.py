import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolchain.base import files
from toolchain.base.files import sha256_file, sha256_json
from toolchain.bundle import last_bundle, open_bundle
from toolchain.bundle.writer import BundleWriter, open_writer
from toolchain.errors import InputError, UsageError


def writer(name: str, text: str) -> Callable[[Path], dict[str, Any]]:
    def run(folder: Path) -> dict[str, Any]:
        (folder / name).write_text(text)
        return {"wrote": text}

    return run


def make(target: Path, one: str = "1", two: str = "2", *, force: bool = False) -> BundleWriter:
    """Build a bundle of two steps, the second of which takes the first's file."""
    with open_writer(target, force=force) as made:
        made.step("first", {"value": one}, writer("model.onnx", one))
        made.step("second", {"value": two, "file": made.artefacts["model.onnx"]}, writer("ranges.json", one + two))
        made.finish({"precision": "fp32"})
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    make(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_a_bundle_has_every_file_and_its_digest(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.manifest["artefacts"] == {name: sha256_file(bundle / name) for name in ("model.onnx", "ranges.json")}
    assert opened.digest == sha256_json({k: v for k, v in opened.manifest.items() if k != "sha256"})


def test_a_file_of_a_step_is_a_file_of_the_bundle(bundle: Path) -> None:
    assert open_bundle(bundle).file("model.onnx").read_text() == "1"


def test_a_missing_artefact_is_refused_with_the_names_of_the_others(bundle: Path) -> None:
    with pytest.raises(
        InputError, match=r"bundle: the bundle has no model\.int8\.onnx, only model\.onnx\. Build the bundle again with"
    ):
        open_bundle(bundle).file("model.int8.onnx")


def test_steps_with_equal_inputs_are_skipped(bundle: Path) -> None:
    file = bundle / "bundle.json"
    before = file.read_bytes(), file.stat().st_ino, bundle.stat().st_ino
    made = make(bundle)
    assert made.skipped == ["first", "second"]
    assert (file.read_bytes(), file.stat().st_ino, bundle.stat().st_ino) == before


def test_only_the_step_whose_inputs_changed_is_redone_and_files_are_carried(bundle: Path) -> None:
    inode = (bundle / "model.onnx").stat().st_ino
    made = make(bundle, two="3")
    assert made.skipped == ["first"]
    assert (bundle / "ranges.json").read_text() == "13"
    assert (bundle / "model.onnx").stat().st_ino == inode


def test_a_step_redone_with_another_file_redoes_the_next(bundle: Path) -> None:
    assert make(bundle, one="9").skipped == []
    assert open_bundle(bundle).file("ranges.json").read_text() == "92"


def test_a_step_redone_with_the_same_file_leaves_the_next_one_skipped(bundle: Path) -> None:
    with open_writer(bundle) as made:
        made.step("first", {"value": "other"}, writer("model.onnx", "1"))
        made.step("second", {"value": "2", "file": made.artefacts["model.onnx"]}, writer("ranges.json", "12"))
        assert made.skipped == ["second"]


def test_a_skipped_step_gives_its_record(bundle: Path) -> None:
    with open_writer(bundle) as made:
        assert made.step("first", {"value": "1"}, lambda folder: pytest.fail("ran")) == {"wrote": "1"}


def test_force_redoes_all(bundle: Path) -> None:
    assert make(bundle, force=True).skipped == []


def test_a_damaged_file_that_is_made_again_to_the_same_bytes_is_replaced(tmp_path: Path) -> None:
    def build(**options: Any) -> bool:
        def run(folder: Path) -> dict[str, Any]:
            (folder / "plans").mkdir()
            return writer("plans/model.plan", "1")(folder)

        with open_writer(tmp_path / "bundle", **options) as made:
            made.step("engine", {}, run, redo=bool(options))
            return made.finish({"precision": "fp32"})

    build()
    (tmp_path / "bundle/plans/model.plan").write_text("2")
    assert build(redo="plans")
    assert open_bundle(tmp_path / "bundle").file("plans/model.plan").read_text() == "1"
    assert not build()


def test_a_step_that_fails_leaves_the_old_bundle_and_no_other_folder(bundle: Path) -> None:
    before = open_bundle(bundle)
    with pytest.raises(ZeroDivisionError), open_writer(bundle) as made:
        made.step("first", {"value": "new"}, lambda folder: {"x": 1 / 0})
    assert open_bundle(bundle) == before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]


@pytest.mark.parametrize("seed", range(8))
def test_a_changed_byte_anywhere_is_found(bundle: Path, seed: int) -> None:
    generator = random.Random(seed)
    file = generator.choice(["bundle.json", "bundle.json", "model.onnx", "ranges.json"])
    data = bytearray((bundle / file).read_bytes())
    data[generator.randrange(len(data))] ^= 1
    (bundle / file).write_bytes(data)
    with pytest.raises(
        InputError, match=rf"{file}: (changed since it was built|broken|schema|the manifest is not JSON)"
    ):
        open_bundle(bundle)


def test_a_missing_file_is_found(bundle: Path) -> None:
    (bundle / "model.onnx").unlink()
    with pytest.raises(InputError, match=r"model\.onnx: this file is missing\. Build the bundle again with --force\.$"):
        open_bundle(bundle)


def test_a_broken_bundle_is_rebuilt_with_force_only(bundle: Path) -> None:
    (bundle / "bundle.json").write_text("{")
    with pytest.raises(InputError, match=r"the manifest is not JSON: .* --force\.$"):
        make(bundle)
    make(bundle, force=True)
    assert open_bundle(bundle)


def rewrite(bundle: Path, **changes: Any) -> None:
    """Change the manifest, and its digest with it."""
    manifest = json.loads((bundle / "bundle.json").read_text()) | changes
    del manifest["sha256"]
    (bundle / "bundle.json").write_text(json.dumps(manifest | {"sha256": sha256_json(manifest)}))


def test_another_schema_is_refused(bundle: Path) -> None:
    rewrite(bundle, schema=99)
    expected = r"bundle\.json: the manifest has schema 99, but this version reads schema 1\. Build the bundle again"
    with pytest.raises(InputError, match=expected):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname"])
def test_a_bundle_that_names_files_outside_of_it_is_refused(bundle: Path, name: str) -> None:
    rewrite(bundle, artefacts={name: "0"})
    with pytest.raises(InputError, match=rf"lists {name}, a path outside the bundle"):
        open_bundle(bundle)


def test_trust_pins_the_digest(bundle: Path) -> None:
    assert open_bundle(bundle, trust=open_bundle(bundle).digest)
    for other in ("0" * 64, ""):
        with pytest.raises(InputError, match=rf"digest \w+ is not the trusted {other}\. Get the bundle again"):
            open_bundle(bundle, trust=other)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in (
        (tmp_path, "not a bundle, because it has no bundle.json"),
        (tmp_path / "absent", "not a bundle"),
        (tmp_path / "file", "this is a file, but a bundle is a folder"),
    ):
        with pytest.raises(InputError, match=message):
            open_bundle(path)


def test_the_current_folder_is_a_bundle_too(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundle)
    assert open_bundle(Path()).file("model.onnx").read_text() == "1"


def test_a_link_to_a_bundle_stays_a_link_and_is_written_on_the_disk_it_points_to(bundle: Path) -> None:
    link = bundle.parent / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(bundle)
    made = make(link, one="9")
    assert made.folder.parent == bundle.parent
    assert link.is_symlink()
    assert open_bundle(bundle).file("model.onnx").read_text() == "9"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["thesis.tex", "bundle.json"])
def test_a_folder_that_is_not_a_bundle_is_never_replaced(tmp_path: Path, force: bool, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"scripts": {}}')
    with pytest.raises(InputError, match=r"mine: it exists and is not a bundle, so it is not replaced\. Choose"):
        make(tmp_path / "mine", force=force)
    assert (tmp_path / "mine" / name).exists()


def test_a_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("text")
    with pytest.raises(InputError, match="it exists and is not a bundle"):
        make(tmp_path / "mine", force=True)


def test_an_empty_folder_may_become_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    make(tmp_path / "new")
    assert open_bundle(tmp_path / "new")


@pytest.mark.parametrize("force", [False, True])
def test_results_survive_a_rebuild(bundle: Path, force: bool) -> None:
    (bundle / "results" / "deep").mkdir(parents=True)
    (bundle / "results" / "one.json").write_text("1")
    (bundle / "results" / "deep" / "two.json").write_text("2")
    make(bundle, one="9", force=force)
    assert (bundle / "results" / "one.json").read_text() == "1"
    assert (bundle / "results" / "deep" / "two.json").read_text() == "2"


def test_results_written_while_the_bundle_is_exchanged_survive(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exchange(new: Path, current: Path) -> None:
        (current / "results").mkdir()
        (current / "results" / "late.json").write_text("1")
        files.exchange(new, current)

    monkeypatch.setattr("toolchain.bundle.writer.exchange", exchange)
    make(bundle, one="9")
    assert (bundle / "results" / "late.json").read_text() == "1"


def test_results_survive_a_death_right_after_the_exchange(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exchange(new: Path, current: Path) -> None:
        files.exchange(new, current)
        raise KeyboardInterrupt

    (bundle / "results").mkdir()
    (bundle / "results" / "one.json").write_text("1")
    monkeypatch.setattr("toolchain.bundle.writer.exchange", exchange)
    with pytest.raises(KeyboardInterrupt):
        make(bundle, one="9")
    assert open_bundle(bundle).file("model.onnx").read_text() == "9"
    assert (bundle / "results" / "one.json").read_text() == "1"


def test_results_are_outside_of_the_digests(bundle: Path) -> None:
    (bundle / "results").mkdir()
    (bundle / "results" / "one.json").write_text("1")
    assert "results/one.json" not in open_bundle(bundle).manifest["artefacts"]
    assert make(bundle).skipped == ["first", "second"]


HOLD = """
import sys
from pathlib import Path
from toolchain.bundle.writer import open_writer
with open_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_bundle_that_another_process_writes_is_refused_until_it_ends(bundle: Path, child: list[str]) -> None:
    with subprocess.Popen([*child, HOLD, str(bundle)], stdin=-1, stdout=-1) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(
            InputError, match=r"bundle: another run is writing this folder\. Wait until it has ended, or choose"
        ):
            make(bundle, one="9")
        assert open_bundle(bundle)  # reading goes on
        other.kill()
    assert make(bundle, one="9")


def test_a_lock_whose_holder_has_just_removed_it_is_taken_again(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, first, flock = bundle.with_name(".bundle.lock"), iter([True]), fcntl.flock

    def late(lock: Any, how: int) -> None:
        if next(first, False):
            file.unlink()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with open_writer(bundle):
        assert file.exists()  # or the next build would lock another file


def test_folders_of_builds_that_were_killed_are_removed(bundle: Path) -> None:
    left, of_another = bundle.with_name(".bundle.new-1"), bundle.with_name(".bundle2.new-1")
    left.mkdir()
    of_another.mkdir()
    make(bundle)
    assert (left.exists(), of_another.exists()) == (False, True)


def test_a_name_with_wildcards_removes_its_own_only(tmp_path: Path) -> None:
    of_another = tmp_path / ".bundle.new-1"
    of_another.mkdir()
    make(tmp_path / "b*")
    assert of_another.exists()


@pytest.mark.parametrize("also_new", [False, True])
def test_opening_recovers_from_a_crash_of_the_fall_back(bundle: Path, also_new: bool) -> None:
    shutil.copytree(bundle, bundle.with_name(".bundle.old"))
    if not also_new:
        shutil.rmtree(bundle)
    assert open_bundle(bundle)
    assert not bundle.with_name(".bundle.old").exists()


def test_opening_does_not_disturb_an_exchange_under_way(bundle: Path, child: list[str]) -> None:
    with subprocess.Popen([*child, HOLD, str(bundle)], stdin=-1, stdout=-1) as other:
        assert other.stdout
        other.stdout.readline()
        bundle.rename(bundle.with_name(".bundle.old"))
        with pytest.raises(InputError, match="not a bundle"):
            open_bundle(bundle)
        assert bundle.with_name(".bundle.old").exists()
        other.kill()


def test_the_last_bundle_has_the_newest_manifest(tmp_path: Path) -> None:
    for age, name in enumerate(["c", "a", "b", ".x.new-1"]):
        make(tmp_path / name)
        os.utime(tmp_path / name / "bundle.json", (1000 + age, 1000 + age))
    assert last_bundle(tmp_path) == tmp_path / "b"
    make(tmp_path / "c")  # nothing changes in this bundle, but it is the one that was built last
    assert last_bundle(tmp_path) == tmp_path / "c"


def test_an_empty_folder_has_no_last_bundle(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r"there is no bundle in this folder or below it\. Give the folder of a bundle, or build one first",
    ):
        last_bundle(tmp_path)


REWRITE = """
import os, sys
from pathlib import Path
from toolchain.bundle.writer import open_writer
os.fsync = lambda descriptor: None  # waiting for the disk would be most of the time, and most of the kills
print("ready", flush=True)
while True:
    for version in "AB":
        with open_writer(Path(sys.argv[1])) as made:
            for number in range(20):
                def run(folder, number=number):
                    (folder / f"{number}.txt").write_text(version * (number + 1))
                    return {}
                made.step(f"step {number}", {"version": version}, run)
            made.finish({"version": version})
"""


@pytest.fixture
def child(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Start of a command line that runs Python code with this toolchain."""
    monkeypatch.setenv("PYTHONPATH", str(root), prepend=os.pathsep)
    return [sys.executable, "-c"]


@pytest.mark.parametrize(
    "kills", [pytest.param(8, marks=pytest.mark.short), pytest.param(50, marks=pytest.mark.stress)]
)
def test_a_kill_at_any_moment_leaves_one_whole_version(tmp_path: Path, child: list[str], kills: int) -> None:
    target, generator, seen, longest_s = tmp_path / "bundle", random.Random(0), [], 0.1
    for _ in range(kills):
        with subprocess.Popen([*child, REWRITE, str(target)], stdout=-1) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(generator.uniform(0, longest_s))  # the instant to kill at, not a wait for something
            process.kill()
        assert process.returncode == -signal.SIGKILL
        if target.exists() or seen:  # the first may die before it wrote one
            opened = open_bundle(target)
            seen.append(opened.manifest["version"])
            texts = [opened.file(f"{number}.txt").read_text() for number in range(20)]
            assert texts == [seen[-1] * (number + 1) for number in range(20)]
        if len(set(seen)) < 2:  # a busy machine writes slowly
            longest_s *= 1.2
    assert set(seen) == {"A", "B"} or kills < 50


@pytest.mark.parametrize(
    ("model", "name"), [("org/Distil_BERT.base", "distil-bert-base"), ("/some/where/demo", "demo"), ("...", "model")]
)
def test_the_name_on_a_server_is_the_last_part_of_the_checkpoint(bundle: Path, model: str, name: str) -> None:
    opened = open_bundle(bundle)
    opened.manifest["model"] = {"id": model}
    assert opened.name == name
