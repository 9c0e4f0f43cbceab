"""The commands of the README and the guides run as they stand, and the README knows every command there is."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from toolchain.cli import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDES = "".join(guide.read_text() for guide in sorted((ROOT / "docs/guides").glob("*.md")))
BLOCKS = re.findall(r"```sh tested\n(.*?)```", README + GUIDES, re.DOTALL)


FIRST, *OTHERS = BLOCKS


@pytest.mark.parametrize(
    "block",
    [FIRST, *(pytest.param(block, marks=pytest.mark.slow) for block in OTHERS)],
    ids=lambda block: block.split("\n")[0][:40],
)
def test_its_commands_run(block, tmp_path, root, commands):
    (tmp_path / "engines").mkdir()
    for recipe in (root / "engines").glob("*.toml"):
        shutil.copy(recipe, tmp_path / "engines")
    environment = {**os.environ, "PYTHONPATH": str(root), "PATH": f"{commands}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_names_every_command():
    assert [name for name in COMMANDS if f"`toolchain {name}`" not in README] == []


def test_paths_it_names_exist(root):
    named = re.findall(r"\b(?:docs|engines|eval|toolchain)/[\w/.-]+\.(?:md|toml|py)\b", README)
    assert [path for path in named if not (root / path).exists()] == []
