"""Checks a Triton model repository without a server and without a GPU."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from toolchain.errors import InputError
from toolchain.records.ship import LintRecord
from toolchain.ship.config import CONFIG, read_config
from toolchain.ship.faults import Finding, LoadedModel, Models, engine, ensemble, model, own_models
from toolchain.ship.install import STAGING, interrupted

CHECKS = (*model.CHECKS, *engine.CHECKS, *own_models.CHECKS, *ensemble.CHECKS)


def lint(repository: Path) -> LintRecord:
    """Return the findings about all models of a repository, errors first.

    Raises:
        InputError: the folder does not exist or contains no model.
    """
    if not repository.is_dir():
        raise InputError(f"{repository}: this is not a folder. Name a model repository.")
    folders = [path for path in sorted(repository.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if not folders:
        raise InputError(
            f"{repository}: the folder contains no model. Make a repository: "
            f"toolchain ship triton BUNDLE -o {repository}."
        )
    findings = list(_hidden(repository))
    models: Models = {}
    for folder in folders:
        if others := [path for path in sorted(folder.rglob("*")) if not path.is_file() and not path.is_dir()]:
            where = str(others[0].relative_to(repository))  # not opened: reading from a pipe would wait for ever
            findings.append(Finding("error", where, "this is not a regular file", "Put the file itself there"))
            continue
        if not (folder / CONFIG).exists():
            findings.append(Finding("warning", folder.name, f"it has no {CONFIG}, so it is not checked", "Write one"))
            continue
        try:
            models[folder.name] = LoadedModel(folder, read_config(folder / CONFIG))
        except InputError as error:
            what, _, advice = str(error).removeprefix(f"{folder / CONFIG}: ").removesuffix(".").rpartition(". ")
            findings.append(Finding("error", f"{folder.name}/{CONFIG}", what, advice))
    for one in models.values():
        for check in CHECKS:
            findings += check(one, models)
    findings = list(dict.fromkeys(findings))  # two checks may report the same missing file
    findings.sort(key=lambda finding: (finding.level, finding.where))
    counts = Counter(finding.level for finding in findings)
    return {
        "repository": str(repository),
        "models": len(folders),
        "errors": counts["error"],
        "warnings": counts["warning"],
        "findings": [{"level": one.level, "where": one.where, "what": one.what, "do": one.do} for one in findings],
    }


def _hidden(repository: Path) -> Iterator[Finding]:
    """Yield findings about hidden folders and about an interrupted run of `ship`."""
    if interrupted(repository):
        yield Finding(
            "error", repository.name, "a run of `ship` was interrupted while it replaced models", "Ship again"
        )
    for path in sorted(repository.glob(".*/")):
        if path.name != STAGING:
            what = "this is a hidden folder, which Triton takes for a model, so that the server does not start"
            yield Finding("error", path.name, what, "Move it elsewhere")


def require_no_errors(found: LintRecord) -> None:
    """Refuse a repository with errors.

    Raises:
        InputError: `found` contains errors.
    """
    if found["errors"]:
        raise InputError(
            f"{found['repository']}: the repository has errors, so models do not load or give wrong results. "
            "Fix the errors named above."
        )
