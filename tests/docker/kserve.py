"""KServe's kinds as its own Python package describes them: the fields of each, with their types.

The package needs so much else that it is not installed but only read. `make test` gets it into .venv/kserve;
TOOLCHAIN_KSERVE names another folder.
"""

import ast
import os
import re
from pathlib import Path
from typing import Any

PLAIN = {"str": str, "bool": bool, "int": int}


class NoKserveError(Exception):
    """The package is missing; the message names the place where it was expected."""


def read_kinds(root: Path) -> dict[str, Path]:
    """Return the name of each class of the package -> its file.

    Raises:
        NoKserveError: it is not here.
    """
    folder = Path(os.environ.get("TOOLCHAIN_KSERVE") or root / ".venv/kserve") / "kserve/models"
    found = ((re.search(r"^class (\w+)", file.read_text(), re.MULTILINE), file) for file in folder.glob("v1*.py"))
    files = {match[1]: file for match, file in found if match}
    if not files:
        raise NoKserveError(f"{folder}: no package kserve (make it with `make test`, or name one in TOOLCHAIN_KSERVE)")
    return files


def faults(value: Any, kind: str, kinds: dict[str, Path], place: str = "") -> list[str]:
    """Return the places where `value` has an unknown field or a wrong type; Kubernetes' own kinds are not checked."""
    if of := re.fullmatch(r"list\[(.*)\]", kind):
        rows = value if isinstance(value, list) else []
        found = [] if isinstance(value, list) else [f"{place}: no list"]
        return found + [fault for row in rows for fault in faults(row, of[1], kinds, f"{place}[]")]
    if kind in PLAIN:
        return [] if type(value) is PLAIN[kind] else [f"{place}: no {kind}"]
    if kind not in kinds:
        return []
    types, keys = (_table(kinds[kind], name) for name in ("openapi_types", "attribute_map"))
    known = {key: types[name] for name, key in keys.items()}
    return [
        fault
        for key, inner in value.items()
        for fault in (faults(inner, known[key], kinds, f"{place}.{key}") if key in known else [f"{place}.{key}"])
    ]


def _table(file: Path, name: str) -> dict[str, str]:
    """Return a table of the class in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            found: dict[str, str] = ast.literal_eval(node.value)
            return found
    raise KeyError(name)
