"""The next command after a gate or a search. It keeps the options of this one, and no sequence of them is a circle.

After a failed INT8 gate: the ranges that `auto` chooses, then the GEMMs that `tune` finds, then a higher precision.
Each is advised only if the bundle was not built with it yet.
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

# Options of a build that its bundle does not keep, so that another build needs them again.
CARRIED = (*GATE, "backend", "device", "target", *ENGINE, *CONSENT)


def after_build(done: BuildRecord, recipe: Recipe) -> str:
    """Return the command after a build without a gate: evaluate its engine, or its graph, with the same consents."""
    engine = done.get("engine")
    backend = ["--backend", engine.get("backend", "trt")] if engine else []
    command = _command("eval", done["bundle"], *backend, *recipe.flags(("device", *CONSENT)))
    return f"{command}, on a machine with that GPU" if engine and engine["gpu"] is None else command


def after_gate(bundle: Bundle, recipe: Recipe, best: Result | None, candidates: Sequence[Candidate]) -> str:
    """Return the command after a gate: serve `best`, which passes, or else evaluate more rows or build otherwise.

    `recipe` is that of the gate, and `candidates` are the artefacts that it judged.
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
        # tune is for INT8 alone.
        if precision == "int8" and known.get("keep") is None:  # the recipe of `tune` has it, even if it is empty
            return _command("tune", place, *recipe.flags(GATE))
    return higher_precision(bundle, carried)


def higher_precision(bundle: Bundle, carried: Sequence[str]) -> str:
    """Return the command that builds a bundle beside this one in the next precision above, with the words `carried`.

    A CPU computes float16 in float32, so FP16 is advised only where there is a GPU. Above FP32 there is nothing.
    """
    place, precision = str(bundle.path), bundle.manifest["precision"]
    if precision == "fp32":
        return _command("verify", place)
    higher = "fp16" if precision in QUANTIZED and gpu_facts()["gpu"] else "fp32"
    beside = bundle.path.with_name(f"{re.sub(r'-(int8|fp8|fp16)$', '', Path(place).resolve().name)}-{higher}")
    return _command("build", place, "--precision", higher, "-o", str(beside), *carried)


def after_tune(bundle: Bundle, recipe: Recipe, *, file: str, enough: bool, exhausted: bool, max_drop: float) -> str:
    """Return the command after a search for the GEMMs to exclude: build its recipe `file`, or search on, or give up.

    `exhausted` says whether the search ended within its budget, so that a larger one would change nothing.
    """
    carried = recipe.replace(max_drop=max_drop).flags(GATE)
    if enough:
        return _command("build", file, *carried)
    if not exhausted:
        return _command("tune", str(bundle.path), *carried, "--budget", str(2 * recipe.budget))
    return higher_precision(bundle, carried)


def _command(*words: str) -> str:
    return shlex.join(["toolchain", *words])
