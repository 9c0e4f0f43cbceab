"""A model repository looked at without a server and without a GPU: what would not load, or serve badly."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolchain.errors import InputError
from toolchain.ship.config import CONFIG, read_config
from toolchain.ship.faults import Finding, Loaded, Models, engine, ensemble, model, own_models
from toolchain.ship.install import WITHIN, interrupted

CHECKS = (*model.CHECKS, *engine.CHECKS, *own_models.CHECKS, *ensemble.CHECKS)


def lint(repository: Path) -> dict[str, Any]:
    """Return the findings about every model of a repository, errors first.

    Raises:
        InputError: there is no repository.
    """
    if not repository.is_dir():
        raise InputError(f"{repository}: no folder. Name a model repository.")
    folders = [path for path in sorted(repository.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if not folders:
        raise InputError(f"{repository}: no model in it. Make one: toolchain ship triton BUNDLE -o {repository}.")
    findings = list(_hidden(repository))
    models: Models = {}
    for folder in folders:
        if not (folder / CONFIG).exists():
            findings.append(Finding("warning", folder.name, f"no {CONFIG}, so nothing of it is checked", "Write one"))
            continue
        try:
            models[folder.name] = Loaded(folder, read_config(folder / CONFIG))
        except InputError as error:
            what = str(error).removeprefix(f"{folder / CONFIG}: ").removesuffix(". Mend it.")
            findings.append(Finding("error", f"{folder.name}/{CONFIG}", what, "Mend it"))
    for one in models.values():
        for check in CHECKS:
            findings += check(one, models)
    findings = list(dict.fromkeys(findings))  # a file may be missed by two checks
    findings.sort(key=lambda finding: (finding.level, finding.where))
    counts = Counter(finding.level for finding in findings)
    return {
        "repository": str(repository),
        "models": len(folders),
        "errors": counts["error"],
        "warnings": counts["warning"],
        "findings": [dataclasses.asdict(one) for one in findings],
    }


def _hidden(repository: Path) -> Iterator[Finding]:
    """Look at what is not to be seen: folders that are no models, and those that a run has left."""
    if interrupted(repository):
        yield Finding("error", repository.name, "a run was stopped among its models", "Ship once more")
    for path in sorted(repository.glob(".*/")):
        if path.name != WITHIN:
            what = "Triton takes a hidden folder for a model too, and does not start"
            yield Finding("error", path.name, what, "Move it elsewhere")


def judge(found: dict[str, Any]) -> None:
    """Raise for errors.

    Raises:
        InputError: there are some.
    """
    if found["errors"]:
        raise InputError(f"{found['repository']}: does not load or answers wrongly. Mend the errors named above.")
