"""Call one function of a test module, whose asserts are rewritten as pytest does it: python body.py FILE FUNCTION.

The keyword arguments come pickled on standard input.
"""

import ast
import importlib.util
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest
from _pytest.assertion.rewrite import rewrite_asserts

ROOT = Path(__file__).parents[2]
SKIPPED = 75


def load(file: Path) -> ModuleType:
    """Import a test module by its file, under the name that pytest gives it."""
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    source = file.read_bytes()
    tree = ast.parse(source)
    rewrite_asserts(tree, source, str(file))
    exec(compile(tree, file, "exec", dont_inherit=True), vars(module))
    return module


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
