"""Call one function of a test module, whose asserts are rewritten as pytest does it: python body.py FILE FUNCTION.

The keyword arguments come pickled on standard input.
"""

import ast
import importlib.util
import json
import pickle
import sys
from pathlib import Path
from types import CodeType, ModuleType

import pytest
from _pytest.assertion.rewrite import PYC_TAIL, _read_pyc, get_cache_dir, rewrite_asserts

ROOT = Path(__file__).parents[2]
SKIPPED = 75


def load(file: Path) -> ModuleType:
    """Import a test module by its file, under the name that pytest gives it."""
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    code = _read_pyc(file, get_cache_dir(file) / f"{file.stem}{PYC_TAIL}") or rewritten(file)
    exec(code, vars(module))
    return module


def rewritten(file: Path) -> CodeType:
    """Compile a module as pytest does; pytest itself keeps the result only if this user may write beside the file."""
    source = file.read_bytes()
    tree = ast.parse(source)
    rewrite_asserts(tree, source, str(file))
    return compile(tree, file, "exec", dont_inherit=True)


def main(file: str, function: str) -> None:
    module = load(Path(file))  # before the arguments, which may be of its classes
    arguments = pickle.load(sys.stdin.buffer)
    try:
        getattr(module, function)(**arguments)
    except pytest.skip.Exception as reason:
        sys.stderr.write(f"{json.dumps(str(reason))}\n")
        sys.exit(SKIPPED)


if __name__ == "__main__":
    main(*sys.argv[1:])
