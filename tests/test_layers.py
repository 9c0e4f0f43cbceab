"""Imports point down: a module knows only modules of lower layers, and its own package's."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import toolchain

# From the bottom to the top: each line may import from the lines above it only.
LAYERS = (
    ("errors", "records"),
    ("base",),
    ("recipe", "graph", "meters"),
    ("engine", "data"),
    ("heads",),
    ("checkpoint",),
    ("runtimes",),
    ("int8",),
    ("bundle",),
    ("evaluation",),
    ("energy",),
    ("report", "profile", "generate"),
    ("workflow",),
    ("diagnose", "serve", "cascade"),
    ("ship",),  # above serve: it writes configurations by the schema in serve/proto
    ("accept", "api", "sweep", "distill"),
    ("cli",),
    ("__main__",),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}

ROOT = Path(toolchain.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
HEAVY = ("torch", "transformers", "onnx", "onnx_ir", "onnxruntime", "numpy", "pandas", "scipy", "sklearn", "datasets")


def part(path: Path) -> str:
    """Return the name of the module or package directly below toolchain."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imported(tree: ast.AST) -> set[str]:
    """Return the parts of toolchain that are imported anywhere, also inside functions."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif not for_types_only(node):
            names |= {f"toolchain.{name}" for name in imported(node)}
    parts = {name.split(".")[1] for name in names if name.startswith("toolchain.")}
    return parts - {"__version__", *toolchain.__all__}


def test_every_module_has_a_layer() -> None:
    assert {part(path) for path in MODULES} == set(RANKS)


def test_imports_point_down() -> None:
    upward = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for name in imported(ast.parse(path.read_text(encoding="utf-8"))) - {part(path)}
        if RANKS[name] >= RANKS[part(path)]
    }
    assert upward == set()


def test_an_import_inside_a_function_counts_and_one_for_types_does_not() -> None:
    code = """
import evaluate
if TYPE_CHECKING:
    import toolchain.types
def function():
    from toolchain import report, __version__
    with this:
        from toolchain.graph.clean import clean
"""
    assert imported(ast.parse(code)) == {"report", "graph"}


def run(root: Path, *arguments: str) -> str:
    env = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, *arguments], env=env, check=True, capture_output=True, text=True).stdout


def test_the_command_line_loads_nothing_heavy(root: Path) -> None:
    modules = [f"toolchain.cli.{path.stem}" for path in (ROOT / "cli").glob("*.py") if path.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(root, "-c", code).strip() == "[]"


def test_help_names_every_command(root: Path) -> None:
    from toolchain.cli import COMMANDS

    shown = run(root, "-m", "toolchain", "--help")
    for name, command in COMMANDS.items():
        assert re.search(rf"^    {name}\b", shown, re.MULTILINE)
        assert " ".join(command.text.split()) in " ".join(shown.split())


WITHOUT = """
import importlib, pkgutil, sys
for name in {names}:
    sys.modules[name] = None  # as if it were not installed
import toolchain
for module in pkgutil.walk_packages(toolchain.__path__, "toolchain."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def test_every_module_imports_without_what_only_some_steps_need(root: Path) -> None:
    names = (
        "torch",
        "transformers",
        "tokenizers",
        "onnxruntime",
        "tensorrt",
        "pynvml",
        "pycuda",
        "datasets",
        "evaluate",
        "scipy",
        "sklearn",
        "pandas",
        "pyarrow",
        "huggingface_hub",
        "mlperf_loadgen",
    )
    assert run(root, "-c", WITHOUT.format(names=names)) == ""


def test_onnx_runtime_keeps_no_usage_data(root: Path, tmp_path: Path) -> None:
    place = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(root)}
    place.pop("ORT_DISABLE_TELEMETRY", None)
    code = "import toolchain, onnxruntime; onnxruntime.get_available_providers()"
    subprocess.run([sys.executable, "-c", code], env=place, check=True)
    assert not list(tmp_path.rglob("*"))


def test_the_service_imports_nothing_that_only_changes_graphs(root: Path) -> None:
    # onnx_ir imports SymPy, which takes longer than all else of a start.
    said = run(root, "-c", "import sys, toolchain.serve.server; print('onnx_ir' in sys.modules, 'onnx' in sys.modules)")
    assert said == "False True\n"
