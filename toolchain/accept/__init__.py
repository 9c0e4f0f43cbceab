"""Acceptance on a machine with a GPU and TensorRT: everything there is, tried in one go, and one report to send in.

A check is a function that returns what it found in a few words, or raises. One that fails does not stop the others.
To add one: a function in a module here and its line in that module's CHECKS.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolchain.accept import energy, engines, page
from toolchain.accept.bench import Bench, Check, Skip
from toolchain.bundle.engine_step import find_machine
from toolchain.errors import GateError, ToolchainError
from toolchain.files import write_json, write_text
from toolchain.recipe import Recipe
from toolchain.report.markdown import acceptance
from toolchain.runtimes.environment import describe

log = logging.getLogger(__name__)

SCHEMA = 1
FOLDER = Path("eval/results/accept")
PASS, FAIL, SKIPPED = "pass", "fail", "skipped"

CHECKS: dict[str, Check] = {**engines.CHECKS, **energy.CHECKS, **page.CHECKS}
"""In order."""


@dataclass(frozen=True)
class Outcome:
    """One check and how it went; `detail` is what was found, or why not."""

    name: str
    outcome: str
    detail: str
    seconds: float


def accept(recipe: Recipe, *, folder: Path = FOLDER, tell: Callable[[str], None] = log.info) -> dict[str, Any]:
    """Run every check and return the record that is also written to accept.json and accept.md in `folder`.

    Raises:
        MachineError: this machine has no GPU or no TensorRT, so there is nothing to accept.
    """
    machine = find_machine(recipe.device)
    bench = Bench(machine, recipe, folder)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "gpu": machine.gpu,
        "tag": str(machine.tag),
        "environment": describe() | {"tensorrt": machine.tag.tensorrt},
        "checks": [],
        "plans": bench.plans,
        "results": bench.results,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for name, run in CHECKS.items():
        tell(f"{name} ...")
        _write(folder, record | {"running": name})  # a check that takes the process with it is then known by name
        found = _run(name, run, bench)
        tell(f"{name}: {found.outcome}{f' ({found.detail})' if found.detail else ''}")
        record["checks"].append(asdict(found))
    return record | {"files": _write(folder, record | {"running": None})}


def _write(folder: Path, record: dict[str, Any]) -> list[str]:
    write_json(folder / "accept.json", record)
    write_text(folder / "accept.md", acceptance(record))
    return [str(folder / "accept.json"), str(folder / "accept.md")]


def judge(record: dict[str, Any]) -> None:
    """Refuse a machine on which a check failed.

    Raises:
        GateError: naming the checks.
    """
    failed = [check["name"] for check in record["checks"] if check["outcome"] == FAIL]
    if failed:
        raise GateError(f"{record['files'][1]}: {len(failed)} checks failed: {', '.join(failed)}. Send both files in.")


def _run(name: str, check: Check, bench: Bench) -> Outcome:
    start = time.perf_counter()
    try:
        outcome, detail = PASS, check(bench)
    except Skip as reason:
        outcome, detail = SKIPPED, str(reason)
    except ToolchainError as error:
        outcome, detail = FAIL, str(error)
    except Exception as error:  # a bug of ours is what this is here to find: the next check must still run
        log.debug("%s", name, exc_info=True)
        outcome, detail = FAIL, f"{type(error).__name__}: {error}"
    return Outcome(name, outcome, detail, round(time.perf_counter() - start, 1))
