"""`toolchain accept`: runs all acceptance checks on a machine with a GPU and TensorRT, and writes one report.

A check is a function that returns a short text about what it found, or raises an error. Each check runs in a process of
its own, so the others run even if it fails or its process crashes.
To add a check, write a function in a module of this package and add it to the CHECKS of that module.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from toolchain.accept import energy, engines, page, releases
from toolchain.accept.alone import call_alone, preload
from toolchain.accept.bench import Bench, Check, Skip
from toolchain.base.amounts import counted
from toolchain.base.files import write_json, write_text
from toolchain.bundle.machine import find_machine
from toolchain.errors import GateError, MachineError, ToolchainError
from toolchain.recipe import Recipe
from toolchain.records.accept import AcceptRecord, CheckRecord, Outcome
from toolchain.records.plan import PlanRecord
from toolchain.records.result import Environment, Result
from toolchain.report.markdown import acceptance
from toolchain.runtimes.environment import describe

log = logging.getLogger(__name__)

SCHEMA = 1
FOLDER = Path("eval/results/accept")

# Name -> check, in the order in which they run. The checks of energy and of the page use the bundles and results of the
# checks of engines, which run first.
CHECKS: dict[str, Check] = {**engines.CHECKS, **releases.CHECKS, **energy.CHECKS, **page.CHECKS}


def accept(recipe: Recipe, *, folder: Path = FOLDER, tell: Callable[[str], None] = log.info) -> AcceptRecord:
    """Run every check; return the record, and write it to accept.json and accept.md in `folder`.

    `tell` gets a line of text at the start and at the end of each check.

    Raises:
        MachineError: this machine has no GPU or no TensorRT, so there is nothing to check.
    """
    gpu, tag, environment = call_alone(_describe, recipe.device)
    preload()
    record: AcceptRecord = {
        "schema": SCHEMA,
        "gpu": gpu,
        "tag": tag,
        "environment": environment,
        "checks": [],
        "plans": {},
        "results": [],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for name in CHECKS:
        tell(f"{name} ...")
        _write(folder, {**record, "running": name})  # if the machine crashes, the file names the running check
        found = _run(name, recipe, folder, record)
        tell(f"{name}: {found['outcome']}" + (f" ({found['detail']})" if found["detail"] else ""))
        record["checks"].append(found)
    return {**record, "files": _write(folder, {**record, "running": None})}


def _write(folder: Path, record: AcceptRecord) -> list[str]:
    write_json(folder / "accept.json", record)
    write_text(folder / "accept.md", acceptance(record))
    return [str(folder / "accept.json"), str(folder / "accept.md")]


def judge(record: AcceptRecord) -> None:
    """Raise an error if a check failed.

    Raises:
        GateError: a check failed. The message names all failed checks.
    """
    failed = [check["name"] for check in record["checks"] if check["outcome"] == "fail"]
    if failed:
        raise GateError(
            f"{record['files'][1]}: {counted(len(failed), 'check')} failed: {', '.join(failed)}. "
            "Attach accept.json and accept.md when you open an issue."
        )


def _describe(device: str) -> tuple[str, str, Environment]:
    machine = find_machine(device)
    return str(machine.gpu), str(machine.tag), cast(Environment, {**describe(), "tensorrt": machine.tag.tensorrt})


def _run(name: str, recipe: Recipe, folder: Path, record: AcceptRecord) -> CheckRecord:
    """Run one check in a process of its own; return its outcome, and store its plans and results in `record`."""
    start = time.perf_counter()
    outcome: Outcome
    try:
        outcome, detail, record["results"], record["plans"] = call_alone(
            _check, name, recipe, folder, record["results"], record["plans"]
        )
    except MachineError as error:
        outcome, detail = "fail", f"{error}. Attach the output above to an issue."
    return {"name": name, "outcome": outcome, "detail": detail, "seconds": round(time.perf_counter() - start, 1)}


def _check(
    name: str,
    recipe: Recipe,
    folder: Path,
    results: list[Result],
    plans: dict[str, PlanRecord],
) -> tuple[Outcome, str, list[Result], dict[str, PlanRecord]]:
    """Run a check; return its outcome, a text about what it found, and all results and plans so far."""
    outcome: Outcome
    try:
        outcome, detail = "pass", CHECKS[name](Bench(find_machine(recipe.device), recipe, folder, results, plans))
    except Skip as reason:
        outcome, detail = "skipped", str(reason)
    except ToolchainError as error:
        outcome, detail = "fail", str(error)
    except Exception as error:  # a bug of this project: the next check must still run
        log.debug("%s", name, exc_info=True)
        outcome, detail = "fail", f"{type(error).__name__}: {error}"
    return outcome, detail, results, plans
