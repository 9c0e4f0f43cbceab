"""Acceptance on a machine with a GPU and TensorRT: everything there is, tried in one go, and one report to send in.

A check is a function that returns what it found in a few words, or raises. One that fails does not stop the others.
To add one: a function here and its line in CHECKS.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import graph, report, verify
from toolchain.artefact import open_artefact
from toolchain.build import build
from toolchain.bundle import open_bundle
from toolchain.compare import FAILS
from toolchain.compile import Machine, find_machine
from toolchain.doctor import examine
from toolchain.engine.api import has_implicit_int8, make_logger
from toolchain.engine.plan import Tag, check_plan
from toolchain.engine.plugins import VARIABLE_LENGTH, probe
from toolchain.environment import describe
from toolchain.errors import GateError, InputError, MachineError, ToolchainError
from toolchain.files import write_json, write_text
from toolchain.gate import contest
from toolchain.graph.encoder import dissect
from toolchain.graph.packed import check_packable
from toolchain.pipeline import evaluate
from toolchain.recipe import Recipe
from toolchain.results import Result
from toolchain.runtimes import open_runtime

log = logging.getLogger(__name__)

SCHEMA = 1
FOLDER = Path("eval/results/accept")
PASS, FAIL, SKIPPED, UNBUILT = "pass", "fail", "skipped", "not built yet"

MAX_DROP = 1.0
"""Points that an engine may lose where `--max-drop` says nothing."""

ENGINES: dict[str, dict[str, str]] = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "int8": {"precision": "int8"},
    "fp16-plugin": {"precision": "fp16", "attention": "plugin"},
    "int8-plugin": {"precision": "int8", "attention": "plugin", "calib_method": "entropy"},
    "int8-plugin-tensorrt": {"precision": "int8", "attention": "plugin", "calib_method": "entropy",
                             "calibrator": "tensorrt"},
}  # fmt: skip
"""Bundle's name -> the options that make it: both roads, both calibrators of the second (it takes no smoothing)."""


class Skip(Exception):  # noqa: N818  # it is no error
    """This machine cannot have the check, and need not."""


@dataclass(frozen=True)
class Check:
    """One check and how it went; `detail` is what was found, or why not."""

    name: str
    outcome: str
    detail: str
    seconds: float


@dataclass
class Bench:
    """What the checks share: the machine, the recipe, where bundles go, and what was found so far."""

    machine: Machine
    recipe: Recipe
    folder: Path
    results: list[Result] = field(default_factory=list)
    plans: dict[str, Any] = field(default_factory=dict)

    def bundle(self, name: str) -> Path:
        """Return a bundle that an earlier check has built.

        Raises:
            Skip: it has not been built.
        """
        if name not in self.plans:
            raise Skip(f"{name} was not built")
        return self.folder / name


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
    write_text(folder / "accept.md", report.acceptance(record))
    return [str(folder / "accept.json"), str(folder / "accept.md")]


def judge(record: dict[str, Any]) -> None:
    """Refuse a machine on which a check failed.

    Raises:
        GateError: naming the checks.
    """
    failed = [check["name"] for check in record["checks"] if check["outcome"] == FAIL]
    if failed:
        raise GateError(f"{record['files'][1]}: {len(failed)} checks failed: {', '.join(failed)}. Send both files in.")


def _run(name: str, check: Callable[[Bench], str] | None, bench: Bench) -> Check:
    start = time.perf_counter()
    if check is None:
        return Check(name, UNBUILT, "", 0.0)
    try:
        outcome, detail = PASS, check(bench)
    except Skip as reason:
        outcome, detail = SKIPPED, str(reason)
    except ToolchainError as error:
        outcome, detail = FAIL, str(error)
    except Exception as error:  # a bug of ours is what this is here to find: the next check must still run
        log.debug("%s", name, exc_info=True)
        outcome, detail = FAIL, f"{type(error).__name__}: {error}"
    return Check(name, outcome, detail, round(time.perf_counter() - start, 1))


def _doctor(bench: Bench) -> str:
    broken = [finding.name for finding in examine() if finding.state == "broken"]
    if broken:
        raise MachineError(f"broken: {', '.join(broken)}. See `toolchain doctor`.")
    return f"{bench.machine.gpu}, {bench.machine.tag}"


def _build(name: str) -> Callable[[Bench], str]:
    def check(bench: Bench) -> str:
        options = ENGINES[name]
        if "attention" in options:
            _need_plugins(bench, options["precision"])
        recipe = bench.recipe.replace(**options, backend="trt", output=str(bench.folder / name))
        done = build(recipe)
        if "lacks" in done:
            raise MachineError(done["lacks"])
        layers = done["engine"]["layers"]
        bench.plans[name] = done["engine"]
        return (
            f"{done['engine']['build_s']:g} s, {layers['layers']} layers, {layers['int8_products']} of "
            f"{layers['products']} products INT8, {layers['fused_attention']} fused attentions"
        )

    return check


def _need_plugins(bench: Bench, precision: str) -> None:
    """Skip what this TensorRT has no plugins for, or what they do not take."""
    trt, tag = bench.machine.trt, bench.machine.tag
    if precision == "int8" and not has_implicit_int8(trt):
        raise Skip(f"TensorRT {tag.tensorrt} has no implicit quantisation")
    try:
        trt.init_libnvinfer_plugins(make_logger(trt)[0], "")
        probe(trt, VARIABLE_LENGTH)
        place = open_bundle(bench.bundle("fp32"))
        encoder = dissect(graph.load(place.file("model.onnx")))
        check_packable(encoder, max_length=place.manifest["max_length"], sm=tag.sm, precision=precision)
    except (InputError, MachineError) as error:
        raise Skip(str(error)) from error


def _verify(name: str) -> Callable[[Bench], str]:
    def check(bench: Bench) -> str:
        found = verify.verify(open_artefact(bench.bundle(name), {"backend": "trt"}))
        verify.judge(found)
        return f"{len(found['cases'])} cases"

    return check


def _eval(name: str, backend: str, **choices: Any) -> Callable[[Bench], str]:
    def check(bench: Bench) -> str:
        place = bench.bundle(name)
        if backend == "ort-trt":
            from toolchain.runtimes.ort import import_onnxruntime
            from toolchain.runtimes.ort_trt import PROVIDER

            if PROVIDER not in import_onnxruntime().get_available_providers():
                raise Skip("this ONNX Runtime has no TensorRT provider")
        result = evaluate({"backend": backend, "limit": bench.recipe.limit, **choices}, bundle=place)
        bench.results.append(result)
        return (
            f"{result['primary']} {result['metrics'][result['primary']]:.4f}, {result['throughput_per_s']:.0f} rows/s"
        )

    return check


def _gate(name: str) -> Callable[[Bench], str]:
    def check(bench: Bench) -> str:
        place = bench.bundle(name)
        limit = bench.recipe.max_drop if bench.recipe.max_drop is not None else MAX_DROP
        found = next(
            (one for one in bench.results if one["backend"] == "trt" and Path(one["file"]).is_relative_to(place)), None
        )
        if found is None:
            raise Skip("was not evaluated")
        record = contest([Path(found["file"])], bench.recipe.replace(max_drop=limit), tell=lambda line: None)[0]
        if record["verdict"] == FAILS:
            raise GateError(f"drops {record['drop_points']:.2f} points, {limit:g} allowed. See `toolchain explain`.")
        return f"{record['drop_points']:+.2f} points: {record['verdict']}"

    return check


def _cuda_graphs(bench: Bench) -> str:
    """Replayed graphs give what one call at a time gives, at every shape twice."""
    artefact = open_artefact(bench.bundle("fp16"), {"backend": "trt"})
    batches = [artefact.tokens.batch(np.arange(count)) for count in (1, 3, 8)]
    choices = {"device": artefact.device, "precision": artefact.precision}
    with open_runtime("trt", artefact.file, **choices) as infer:
        expected = [infer(batch) for batch in batches]
    with open_runtime("trt", artefact.file, cuda_graphs=True, **choices) as infer:
        found = [infer(batch) for batch in batches * 2]
    largest = max(float(np.abs(one - other).max()) for one, other in zip(found, expected * 2, strict=True))
    allowed = verify.INVARIANCE["fp16"] * max(1.0, *(float(np.abs(one).max()) for one in expected))
    if largest > allowed:
        raise GateError(f"logits differ by {largest:.2g} with CUDA graphs, {allowed:.2g} allowed. Report this bug.")
    return f"logits differ by {largest:.1e}"


def _repeat(bench: Bench) -> str:
    recipe = bench.recipe.replace(precision="fp16", backend="trt", output=str(bench.bundle("fp16")))
    done = build(recipe)
    if not done["up_to_date"]:
        raise InputError(f"{done['bundle']}: a second build did {', '.join(done['done'])}. Report this bug.")
    return "nothing done"


def _foreign_plan(bench: Bench) -> str:
    """Refuse a plan for another GPU before a byte of it is read."""
    place = bench.bundle("fp16")
    plan = open_bundle(place).file(bench.plans["fp16"]["file"])
    for other in (Tag(bench.machine.tag.sm + 1, bench.machine.tag.tensorrt), Tag(bench.machine.tag.sm, "99.0.0.1")):
        try:
            check_plan(plan, other)
        except MachineError:
            continue
        raise InputError(f"{plan}: taken for {other}. Report this bug.")
    return "refused"


CHECKS: dict[str, Callable[[Bench], str] | None] = {
    "doctor": _doctor,
    **{f"build {name}": _build(name) for name in ENGINES},
    **{f"verify {name}": _verify(name) for name in ENGINES},
    "eval torch": _eval("fp32", "torch"),
    "eval ort fp32": _eval("fp32", "ort"),
    "eval ort int8": _eval("int8", "ort"),
    **{f"eval {name}": _eval(name, "trt") for name in ENGINES},
    "eval ort-trt fp16": _eval("fp16", "ort-trt"),
    "eval ort-trt int8": _eval("int8", "ort-trt"),
    **{f"gate {name}": _gate(name) for name in ENGINES},
    "CUDA graphs": _cuda_graphs,
    "second build": _repeat,
    "foreign plan": _foreign_plan,
    "energy": None,
    "HTML report": None,
}
"""In order; None stands for what this version cannot do yet."""
