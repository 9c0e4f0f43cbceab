"""The folder of a service is complete, names the digest of its bundle, and its files pass their linters."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from toolchain.bundle import MANIFEST, digest_of, locked, open_bundle
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.ship.service import ship_image, ship_service


@pytest.fixture
def shipped(demo_bundle, tmp_path):
    return ship_service(demo_bundle, tmp_path / "made", name="demo")


def test_the_bundle_is_complete_except_for_results(shipped, demo_bundle):
    inside = open_bundle(Path(shipped["path"]) / "bundle", trust=shipped["sha256"])
    assert inside.manifest == open_bundle(demo_bundle).manifest
    assert not (inside.path / "results").exists()


def test_nothing_but_the_listed_files_is_shipped_and_everybody_may_read_it(demo_bundle, tmp_path):
    bundle = shutil.copytree(demo_bundle, tmp_path / "bundle")
    secret = tmp_path / "key"
    secret.write_text("a secret")
    for name in (".env", "notes.txt", "plans/old/model.plan", ".git/config", "results/r.json"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).symlink_to(secret) if "notes" in name else shutil.copy(secret, bundle / name)
    before = os.umask(0o077)
    try:
        folder = Path(ship_service(bundle, tmp_path / "made", name="demo")["path"])
    finally:
        os.umask(before)
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    assert not any(b"a secret" in file.read_bytes() for file in files)
    inside = {str(file.relative_to(folder / "bundle")) for file in files if file.is_relative_to(folder / "bundle")}
    assert inside == {MANIFEST, *open_bundle(demo_bundle).manifest["artefacts"]}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in (folder, *folder.rglob("*")))
    assert all(path.stat().st_mode & 0o111 == 0o111 for path in (folder, *folder.rglob("*")) if path.is_dir())
    (artefact,) = (bundle / name for name in inside if name == "config.json")
    artefact.unlink()
    artefact.symlink_to(secret)
    with pytest.raises(InputError, match=r"config\.json: this is a symbolic link"):
        ship_service(bundle, tmp_path / "other", name="demo")
    assert not (tmp_path / "other").exists()


def test_docker_sends_only_the_bundle_to_its_builder(shipped):
    lines = (Path(shipped["path"]) / ".dockerignore").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["*", "!bundle"]


def test_a_lock_through_a_link_changes_nothing(demo_bundle, tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".made.lock").symlink_to(tmp_path / "victim")
    with pytest.raises((InputError, OSError)):
        ship_service(demo_bundle, tmp_path / "made", name="demo")
    assert (tmp_path / "victim").read_text() == "kept"


def test_the_compose_file_publishes_ports_to_this_machine_only(root, shipped):
    folder = Path(shipped["path"])
    (service,) = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
    assert service["image"] == shipped["image"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    lines = (folder / "Dockerfile").read_text().splitlines()
    assert json.loads(lines[-1].removeprefix("CMD "))[:4] == ["serve", "/bundle", "--name", "demo"]
    linter = Path(sys.executable).parent / "hadolint"
    if linter.exists():
        command = [linter, "--config", root / "docker/.hadolint.yaml", "--no-color", folder / "Dockerfile"]
        assert subprocess.run(command, capture_output=True, text=True).stdout == ""


def test_the_image_serves_with_the_cache_that_was_asked_for(demo_bundle, tmp_path):
    ship_service(demo_bundle, tmp_path / "made", cache=500)
    command = (tmp_path / "made/Dockerfile").read_text().splitlines()[-1]
    assert json.loads(command.removeprefix("CMD "))[-4:] == ["--host", "0.0.0.0", "--cache", "500"]


def test_a_model_name_that_no_image_can_have_is_kept_for_the_model(demo_bundle, tmp_path):
    made = ship_service(demo_bundle, tmp_path / "made", name="SST_2")
    assert made["image"].startswith("sst-2-service:")
    assert '"--name", "SST_2"' in (tmp_path / "made/Dockerfile").read_text()


def test_the_name_of_a_foreign_model_stays_on_its_line_of_the_readme(demo_bundle, tmp_path):
    folder = shutil.copytree(demo_bundle, tmp_path / "bundle")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["model"]["id"] = "x`\n# y\x1b"
    manifest["sha256"] = digest_of(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    ship_service(folder, tmp_path / "made", name="demo")
    readme = (tmp_path / "made/README.md").read_text()
    assert "`x??# y?`" in readme


def test_no_placeholder_is_left(shipped):
    for name in ("Dockerfile", "compose.yaml", "README.md"):
        assert "$" not in (Path(shipped["path"]) / name).read_text()
    assert shipped["sha256"] in (Path(shipped["path"]) / "README.md").read_text()


def test_a_service_is_replaced_and_another_folder_is_not(demo_bundle, shipped, tmp_path):
    again = ship_service(demo_bundle, Path(shipped["path"]), name="other")
    assert "other" in (Path(again["path"]) / "README.md").read_text()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kept").touch()
    with pytest.raises(InputError, match="Choose a new folder"):
        ship_service(demo_bundle, tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["kept"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_with_a_file_of_the_user_is_not_replaced(demo_bundle, shipped, tmp_path, whole):
    """The folder also contains a bundle, or a whole service."""
    place = Path(shipped["path"]) if whole else tmp_path / "mine"
    if not whole:
        shutil.copytree(demo_bundle, place / "bundle")
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"contains thesis\.txt, which is not part of a service\. Choose a new folder"):
        ship_service(place / "bundle", place)
    assert (place / "thesis.txt").read_text() == "mine"
    (place / "thesis.txt").unlink()
    if not whole:
        with pytest.raises(InputError, match="it lacks Dockerfile"):
            ship_service(demo_bundle, place)


@pytest.mark.parametrize("inside", ["", "service", "deep/service"])
def test_a_bundle_is_not_copied_into_itself(demo_bundle, tmp_path, inside):
    bundle = Path(shutil.copytree(demo_bundle, tmp_path / "in"))
    there = sorted(bundle.rglob("*"))
    with pytest.raises(InputError, match=r"lies in the bundle.* Choose a folder outside"):
        ship_service(bundle, bundle / inside)
    assert sorted(bundle.rglob("*")) == there


def test_the_command_that_starts_it_is_quoted(demo_bundle, tmp_path):
    place = tmp_path / "my svc"
    words = shlex.split(ship_service(demo_bundle, place)["next"])
    assert words == ["docker", "compose", "--project-directory", str(place), "up"]


def test_one_run_at_a_time_writes_it_and_a_killed_run_does_not_block(demo_bundle, shipped):
    place = Path(shipped["path"])
    with locked(place), pytest.raises(InputError, match="another run is writing this folder"):
        ship_service(demo_bundle, place)
    (place.parent / ".made.new").mkdir()
    ship_service(demo_bundle, place)
    assert [path.name for path in place.parent.iterdir()] == ["made"]


@pytest.mark.parametrize(("choice", "message"), [({"name": "not a name"}, "--name"), ({"backend": "trt"}, "no plan")])
def test_an_invalid_choice_is_refused_and_writes_nothing(demo_bundle, tmp_path, choice, message):
    with pytest.raises(UsageError, match=message):
        ship_service(demo_bundle, tmp_path / "made", **choice)
    assert list(tmp_path.iterdir()) == []


DOCKER = """#!/bin/sh
echo "$@" >> {log}
[ "$1" != {fails} ] || {{ echo "cannot $1" >&2; exit 1; }}
for last; do :; done
[ "$1" != build ] || [ -f "$last/bundle/bundle.json" ]
"""


def docker(tmp_path, monkeypatch, *, fails="nothing"):
    program, log = tmp_path / "docker", tmp_path / "log"
    program.write_text(DOCKER.format(log=log, fails=fails))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return log


def test_the_image_is_built_from_the_folder_of_the_service(demo_bundle, tmp_path, monkeypatch):
    log = docker(tmp_path, monkeypatch)
    made = ship_image(demo_bundle, tag="sentiment:1", name="demo")
    assert made["image"] == "sentiment:1"
    assert log.read_text().splitlines()[-1].startswith("build --tag sentiment:1 /")


def test_without_docker_the_message_names_another_way(demo_bundle, tmp_path, monkeypatch):
    docker(tmp_path, monkeypatch, fails="info")
    with pytest.raises(MachineError, match="ship service"):
        ship_image(demo_bundle)


def test_a_failed_build_names_the_reason(demo_bundle, tmp_path, monkeypatch):
    docker(tmp_path, monkeypatch, fails="build")
    with pytest.raises(Exception, match=r"cannot build.*--target service"):
        ship_image(demo_bundle)
