"""Run one cell of a sweep: build its bundle if it is missing, evaluate it, and record both commands."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from toolchain.bundle import MANIFEST
from toolchain.errors import ToolchainError
from toolchain.records.sweep import CellRun
from toolchain.sweep import state
from toolchain.sweep.cells import Cell, Options, of_build, of_eval
from toolchain.sweep.runner import Ended, run

log = logging.getLogger(__name__)

# Exit code of a build whose gate failed. Such a build has written its bundle, and the results show the failed gate, so
# the cell goes on.
GATE_FAILED = 3

# If the build of a cell failed, the reason in its record begins with this text.
BUILD = "build: "

Say = Callable[[str], None]


def attempt(folder: Path, cell: Cell, program: Sequence[str], tell: Say) -> None:
    """Run a cell in the folder of a sweep, and write its result there, or the reason why it failed."""
    state.remove_left(folder, cell)
    before = state.read_run(folder, cell)
    file = folder / state.CELLS / cell.name / state.LOG
    bundle = folder / state.BUNDLES / cell.bundle
    kept: CellRun = {
        "attempts": (before["attempts"] if before else 0) + 1,
        "seconds": 0.0,
        "build_s": None,
        "exit_code": 0,
        "reason": None,
        "size_mb": None,
    }
    tell(cell.name)
    # A failed build may have left an incomplete bundle, for example without the engine, so it is built again.
    failed = before is not None and (before["reason"] or "").startswith(BUILD)
    if failed or not state.is_built(folder, cell):
        words = ["build", *sets(of_build(cell.options)), *_reuse(folder), "-o", str(bundle), "--json"]
        built = run(words, file, program=program)
        kept["build_s"] = built.seconds
        if built.code not in (0, GATE_FAILED) or not state.is_built(folder, cell):
            reason = built.reason or "it wrote no bundle"
            fail(folder, cell, kept | {"exit_code": built.code or 1, "reason": f"{BUILD}{reason}"}, file)
            return
    ended = run(["eval", str(bundle), *sets(of_eval(cell.options)), "--json"], file, program=program)
    kept |= {"seconds": ended.seconds, "exit_code": ended.code, "reason": ended.reason}
    if ended.code:
        fail(folder, cell, kept, file)
        return
    try:
        state.keep(folder, cell, kept, ended)
    except (ToolchainError, OSError) as error:
        fail(folder, cell, kept | {"exit_code": 1, "reason": f"eval: {error}"}, file)


def _reuse(folder: Path) -> list[str]:
    """Return the option (--reuse) that lets a build reuse the exported graph of another bundle of this sweep."""
    bundles = folder / state.BUNDLES
    return ["--reuse", str(bundles)] if any(bundles.glob(f"*/{MANIFEST}")) else []


def fail(folder: Path, cell: Cell, kept: CellRun, file: Path) -> None:
    """Record why a cell failed, and log a warning; `file` is the log of the cell's commands."""
    log.warning("%s failed: %s (log: %s)", cell.name, kept["reason"], file)
    state.keep(folder, cell, kept, Ended(kept["exit_code"] or 1, kept["seconds"], b"", file))


def sets(options: Options) -> list[str]:
    """Return the words of a command line that set options: --set KEY=VALUE for each."""
    # Without ensure_ascii=False, JSON would write some characters as surrogate pairs, which TOML does not allow.
    texts = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in options.items()]
    return [word for text in texts for word in ("--set", text)]
