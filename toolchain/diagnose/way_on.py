"""Choose the next command to advise after a build, a gate or a search. Options of the last command are kept.

After a failed INT8 gate, the advice is first to build with `--calib-method auto`, then to exclude GEMMs with `tune`,
then to build in a higher precision. Each command is advised only if the bundle was not built with it yet, so the advice
never repeats.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from toolchain.bundle import Bundle
from toolchain.evaluation.compare import UNKNOWN
from toolchain.evaluation.target import choose_graph, recorded
from toolchain.recipe import Recipe
from toolchain.recipe.groups import ENGINE, GATE
from toolchain.recipe.options import CONSENT
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.bundle import BuildRecord
from toolchain.records.deployment import Candidate
from toolchain.records.result import Result
from toolchain.runtimes.environment import gpu_facts

# Options of a build that its bundle does not record, so the command for another build repeats them.
CARRIED = (*GATE, "backend", "device", "target", *ENGINE, *CONSENT)


def after_build(done: BuildRecord, recipe: Recipe) -> str:
    """Return the command after a build without a gate: it evaluates the bundle's engine, or else its graph.

    It keeps the options with which the user allowed pickled weights or remote code.
    """
    engine = done.get("engine")
    backend = ["--backend", engine.get("backend", "trt")] if engine else []
    command = _command("eval", done["bundle"], *backend, *recipe.flags(("device", *CONSENT)))
    return f"{command}, on a machine with that GPU" if engine and engine["gpu"] is None else command


def after_gate(bundle: Bundle, recipe: Recipe, best: Result | None, candidates: Sequence[Candidate]) -> str:
    """Return the command after a gate.

    The command serves the `best` artefact, which passed, or builds an engine from it on a GPU. If the gate cannot tell,
    the command runs the gate again with more rows. If all failed, it builds the bundle in another way. `recipe` is that
    of the gate, and `candidates` are the artefacts that the gate judged.
    """
    place = str(bundle.path)
    if best and best.get("halves"):
        return f"{_command('build', place, '--backend', 'trt')}, on the machine with the GPU"
    if best:
        file, precision = best["artefact"]["file"], bundle.manifest["precision"]
        backend = [] if best["backend"] == "ort" else ["--backend", best["backend"]]
        default = best["backend"] != "ort" or file == choose_graph(bundle, precision, best["device"])
        return _command("serve", place, *backend, *([] if default else ["--file", file]))
    carried = recipe.flags(CARRIED)
    if any(one["verdict"] == UNKNOWN for one in candidates):
        rows = [] if any("why" in one["comparison"] for one in candidates) else ["--data", "MORE_ROWS"]
        return _command("build", place, *rows, *carried)
    return _after_failure(bundle, recipe, carried)


def _after_failure(bundle: Bundle, recipe: Recipe, carried: list[str]) -> str:
    place, known, precision = str(bundle.path), bundle.manifest["recipe"], bundle.manifest["precision"]
    if precision in QUANTIZED:
        if recorded(bundle, {}).range_method != "auto" and not known.get("calibration"):
            return _command("build", place, "--calib-method", "auto", *carried)
        # `tune` supports only INT8.
        if precision == "int8" and known.get("keep") is None:  # `tune` records `keep`, even if it is empty
            return _command("tune", place, *recipe.flags(GATE))
    return higher_precision(bundle, carried)


def higher_precision(bundle: Bundle, carried: Sequence[str]) -> str:
    """Return the command that builds a bundle in the next higher precision, in a folder beside this bundle.

    `carried` are further words of the command. FP16 is advised only on a machine with a GPU, because a CPU computes
    float16 in float32. For a bundle in FP32, the command is `verify`.
    """
    place, precision = str(bundle.path), bundle.manifest["precision"]
    if precision == "fp32":
        return _command("verify", place)
    higher = "fp16" if precision in QUANTIZED and gpu_facts()["gpu"] else "fp32"
    beside = bundle.path.with_name(f"{re.sub(r'-(int8|fp8|fp16)$', '', Path(place).resolve().name)}-{higher}")
    return _command("build", place, "--precision", higher, "-o", str(beside), *carried)


def after_tune(bundle: Bundle, recipe: Recipe, *, file: str, enough: bool, exhausted: bool, max_drop: float) -> str:
    """Return the command after a search for the GEMMs to exclude from INT8.

    If the found set is `enough`, its recipe `file` is built. Otherwise the search continues with twice the budget or,
    if it is `exhausted`, the bundle is built in a higher precision. A search is exhausted if it ended before it used
    its budget, so that a larger one would change nothing.
    """
    carried = recipe.replace(max_drop=max_drop).flags(GATE)
    if enough:
        return _command("build", file, *carried)
    if not exhausted:
        return _command("tune", str(bundle.path), *carried, "--budget", str(2 * recipe.budget))
    return higher_precision(bundle, carried)


def _command(*words: str) -> str:
    return shlex.join(["toolchain", *words])
