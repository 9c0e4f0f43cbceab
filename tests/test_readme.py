"""The commands of the README and the guides run as they are written; every command is described; links work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked.server import EXECUTABLE
from toolchain.cli import COMMANDS
from toolchain.ship.folder import check_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
GUIDES = "".join(guide.read_text() for guide in sorted((ROOT / "docs/guides").glob("*.md")))
BLOCKS = re.findall(r"```sh tested\n(.*?)```", README + GUIDES, re.DOTALL)
# The study runs as a whole: each block uses what those before it made.
WALK = re.findall(r"```sh (tested|judged) walk\n(.*?)```", GUIDES, re.DOTALL)

# The first block on fewer rows and by one method: `auto` takes 40 s more.
FEW = (
    BLOCKS[0]
    .replace("--max-drop 1\n", "--max-drop 1 --calib-method entropy --calib-samples 64\n", 1)
    .replace("eval --backend torch", "eval --backend torch --limit 200")
    .replace("eval --backend ort", "eval --backend ort --limit 200")
)
BUNDLE = "engines/build/demo-demo-int8"


@pytest.fixture(scope="module")
def clone(root, tmp_path_factory):
    """A copy of the repository, in whose root a user types what the documents say."""
    kept = (".git", ".venv", ".*_cache", "__pycache__", ".hypothesis", "results", "build")
    place = tmp_path_factory.mktemp("clone") / "toolchain"
    return shutil.copytree(root, place, symlinks=True, ignore=shutil.ignore_patterns(*kept))


def typed(code, clone, commands):
    """Run lines of a shell in the clone's root, which is on the import path too, as for `python -m` and a notebook."""
    environment = {**os.environ, "PYTHONPATH": str(clone), "PATH": f"{commands}:{os.environ['PATH']}"}
    environment[EXECUTABLE] = str(commands / "python")  # the cells of a sweep too are forked
    done = subprocess.run(["bash", "-euc", code], cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "block",
    [pytest.param(FEW, marks=pytest.mark.short), *(pytest.param(block, marks=pytest.mark.slow) for block in BLOCKS)],
    ids=lambda block: block.split("\n")[0][-40:],
)
def test_its_commands_run(block, clone, commands, demo_bundle):
    if block == BLOCKS[0]:
        shutil.rmtree(clone / "engines/build", ignore_errors=True)  # it begins with nothing
    else:  # the model has been exported
        bundles = [f"engines/build/demo-demo-{name}" for name in ("int8", "fp32", "calibration", "fp16")]
        for place in ("checked", *bundles):
            if not (clone / place).exists():
                shutil.copytree(demo_bundle, clone / place)
    typed(block, clone, commands)
    if block == BLOCKS[0]:  # the guide to accuracy makes the same choice in `checked`
        shutil.rmtree(clone / "checked", ignore_errors=True)
        shutil.copytree(clone / BUNDLE, clone / "checked")


@pytest.mark.slow
def test_the_study_runs_from_the_checkpoint_to_the_page(clone, commands):
    """On 40 rows. What depends on the machine may end with 3 or 4, with an error of one line."""
    text = (clone / "eval/sweep.toml").read_text()
    (clone / "eval/sweep.toml").write_text(re.sub(r"(limit|calib_samples) = \d+", r"\1 = 40", text))
    shutil.rmtree(clone / "eval/results", ignore_errors=True)
    (clone / "report.html").unlink(missing_ok=True)
    for kind, block in WALK:
        if kind == "tested":
            typed(block, clone, commands)
            continue
        for line in block.splitlines():
            said = typed(
                f"{{ {line} >&2; }} 2>&1 || {{ code=$?; echo code $code; [[ $code = [34] ]]; }}", clone, commands
            )
            assert ("code" in said) == bool(re.search(r"^error: .*\ncode [34]$", said, re.MULTILINE)), said
    record = json.loads((clone / "eval/results/sweep/sweep.json").read_text())
    assert {front["cost"] for front in record["fronts"]} == {"latency", "throughput", "size"}
    assert "Sweep: sweep" in (clone / "report.html").read_text()


@pytest.mark.slow
def test_the_service_answers_as_the_readme_shows(clone, commands):
    """The two lines of the block with `curl`, on a free port, after a block that builds the bundle."""
    typed(BLOCKS[-1].split("\n")[0], clone, commands)
    serve, curl = re.search(r"^(toolchain serve \S+).*\n(curl .*)$", README, re.MULTILINE).groups()
    environment = {**os.environ, "PYTHONPATH": str(clone), "PATH": f"{commands}:{os.environ['PATH']}"}
    command = [*serve.split(), "--http-port", "0", "--no-grpc", "--json"]
    with subprocess.Popen(command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = json.loads(process.stdout.readline())["http"]
            answer = json.loads(typed(curl.replace("http://127.0.0.1:8000", address), clone, commands))
        finally:
            process.terminate()
    assert answer["label"] == "positive"
    assert answer["score"] > 0.9


@pytest.mark.slow
def test_a_build_still_works_in_the_root_after_all_of_that(clone, tiny_distilbert):
    """In new processes, which import what Python finds from the root: no folder may stand in a package's place."""
    values = {"model": str(tiny_distilbert), "precision": "fp32", "output": "again"}
    code = f"import toolchain; print(toolchain.build(**{values})['done'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True)
    assert (done.returncode, "export" in done.stdout) == (0, True), done.stderr


def test_no_folder_of_the_root_and_none_that_documents_write_has_the_name_of_a_package(root):
    written = re.findall(r"(?:-o|--output) ([\w-]+)\b(?!\.)", README + GUIDES + (root / "docker/README.md").read_text())
    ours = {path.name for path in root.iterdir() if path.is_dir() and path.name.isidentifier()}
    assert {"repository", "service"} <= set(written)
    # Packages such as these are sometimes installed by mistake, and win over a folder without code.
    for name in sorted({*written, *ours} - {"toolchain", "docs", "tests"}):
        check_folder(Path(name))


def test_what_documents_write_into_the_root_is_not_seen_by_git(root):
    ignored = (root / ".gitignore").read_text().split()
    written = re.findall(r"(?:-o|--output) ([\w-]+)\b(?![./])", "".join([*BLOCKS, *(block for _, block in WALK)]))
    assert [name for name in written if f"/{name}/" not in ignored] == []


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
    parts = ("toolchain", "tests", "benchmarks")
    files = [str(path.relative_to(root)) for part in parts for path in (root / part).rglob("*.*")]
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
