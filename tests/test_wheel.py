"""The wheel holds one import package with its data, and nothing of the workspace around it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

WORKSPACE = ("calibration", "engines", "eval")


@pytest.fixture(scope="module")
def names(root: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a fresh wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_has_one_top_level_name(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"toolchain"}


def test_wheel_has_every_module_and_task_and_the_mark_of_types(names: set[str], root: Path) -> None:
    patterns = ("*.py", "*.toml", "*.html", "*.css", "*.json", "*.binpb", "*.proto", "py.typed")
    wanted = [path for pattern in patterns for path in (root / "toolchain").rglob(pattern)]
    makers = root / "toolchain/data/demo/make"  # the sdist has them
    assert {str(path.relative_to(root)) for path in wanted if makers not in path.parents} <= names
    assert not any(name.startswith("toolchain/data/demo/make") for name in names)
    assert {"toolchain/py.typed", "toolchain/data/tasks/sst2.toml", "toolchain/report/page.html"} <= names


def test_wheel_has_the_licence_and_the_command(names: set[str]) -> None:
    ends = {name.split(".dist-info/")[1] for name in names if ".dist-info/" in name}
    assert {"licenses/LICENSE", "entry_points.txt"} <= ends


def test_wheel_has_no_caches(names: set[str]) -> None:
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


@pytest.mark.parametrize("folder", WORKSPACE)
def test_workspace_folders_hold_no_python(root: Path, folder: str) -> None:
    assert (root / folder).is_dir()
    assert list((root / folder).rglob("*.py")) == []


def test_an_editable_install_puts_toolchain_alone_on_the_import_path(root: Path, tmp_path: Path) -> None:
    code = f"from hatchling.build import build_editable; print(build_editable({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    wheel = zipfile.ZipFile(tmp_path / done.stdout.split()[-1])
    (path,) = (wheel.read(name).decode().split() for name in wheel.namelist() if name.endswith(".pth"))
    (folder,) = map(Path, path)
    assert [entry.name for entry in folder.iterdir()] == ["toolchain"]
    assert (folder / "toolchain").samefile(root / "toolchain")
