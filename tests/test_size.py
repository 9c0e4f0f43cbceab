"""Size is reviewed: a file or a function that grows too long should be two."""

import ast
from pathlib import Path

import toolchain

ROOT = Path(toolchain.__file__).parent
FILE_LINES, FUNCTION_LINES = 400, 50


def test_files_and_functions_stay_small() -> None:
    long: dict[str, int] = {}
    for path in sorted(ROOT.rglob("*.py")):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        long[name] = len(text.splitlines()) if len(text.splitlines()) >= FILE_LINES else 0
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long[f"{name}:{node.lineno}:{node.name}"] = lines if lines >= FUNCTION_LINES else 0
    assert {place: lines for place, lines in long.items() if lines} == {}
