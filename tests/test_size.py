"""Size is reviewed: a file that grows too long wants to be two."""

import ast
from pathlib import Path

import pytest

import toolchain

ROOT = Path(toolchain.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
FILE_LINES, FUNCTION_LINES = 300, 50


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert len(text.splitlines()) < FILE_LINES
    assert {name: lines for name, lines in sizes.items() if lines >= FUNCTION_LINES} == {}
