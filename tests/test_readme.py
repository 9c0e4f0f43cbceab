"""The commands of the README and the guides run as they are written; every command is described; links work."""

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
def test_its_commands_run(block, tmp_path, root, commands, demo_bundle):
    if block != FIRST:  # whose commands begin with nothing; the others find the model exported
        for place in ("checked", "engines/build/demo-demo-int8"):
            if place in block or ("build -m demo --task demo --precision int8\n" in block and place != "checked"):
                shutil.copytree(demo_bundle, tmp_path / place)
    (tmp_path / "engines").mkdir(exist_ok=True)
    for recipe in (root / "engines").glob("*.toml"):
        shutil.copy(recipe, tmp_path / "engines")
    environment = {**os.environ, "PYTHONPATH": str(root), "PATH": f"{commands}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_guide_to_commands_names_each(root):
    page = (root / "docs/guides/commands.md").read_text()
    assert [name for name in COMMANDS if f"| `toolchain {name}` |" not in page] == []


def test_links_between_documents_lead_somewhere(root):
    documents = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").rglob("*.md")]
    broken = []
    for document in documents:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            if not (document.parent / link).exists():
                broken.append(f"{document.relative_to(root)}: {link}")
    assert broken == []


def test_files_that_documents_name_exist(root):
    files = [*(str(path.relative_to(root)) for part in ("toolchain", "tests") for path in (root / part).rglob("*.*"))]
    missing = []
    for document in (root / "docs/architecture.md", *(root / "docs/decisions").glob("*.md")):
        for name in re.findall(r"`([\w/.-]+\.py)`", document.read_text()):
            if not any(f"/{file}".endswith(f"/{name}") for file in files):
                missing.append(f"{document.name}: {name}")
    assert missing == []


def test_the_python_of_the_readme_is_that_of_the_guide_which_runs(root):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    guide = (root / "docs/guides/python.md").read_text().splitlines()
    assert [line for line in block.splitlines() if line and line not in guide] == []


def test_paths_it_names_exist(root):
    named = re.findall(r"\b(?:docs|engines|eval|toolchain)/[\w/.-]+\.(?:md|toml|py)\b", README)
    assert [path for path in named if not (root / path).exists()] == []
