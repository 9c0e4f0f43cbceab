"""Acceptance checks of engines.

An engine of each precision and path is built, verified, evaluated and gated. Further checks are for CUDA graphs, a
second build, and plans of other machines.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import graph
from toolchain.accept.bench import Bench, Check, Skip
from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.diagnose import verify
from toolchain.diagnose.doctor import examine
from toolchain.diagnose.gate import compare_results
from toolchain.diagnose.probe import open_probe_graph
from toolchain.engine.api import has_implicit_int8, make_logger
from toolchain.engine.plan import Tag, check_plan
from toolchain.engine.plugins import VARIABLE_LENGTH, plugin_versions
from toolchain.errors import GateError, InputError, MachineError
from toolchain.evaluation.compare import FAILS
from toolchain.graph.encoder import parse_encoder
from toolchain.graph.plugin_graph import check_packable
from toolchain.runtimes import open_runtime
from toolchain.workflow import evaluate

# Most points by which the metric of an engine may drop if --max-drop is not given.
MAX_DROP = 1.0

# Name of a bundle -> the options that build it. The bundles cover the native path, and the plugin path with both of its
# calibrators. The plugin path does not support smoothing, which the calibration method `auto` might choose.
ENGINES: dict[str, dict[str, str]] = {
    "fp32": {"precision": "fp32"},
    "fp16": {"precision": "fp16"},
    "int8": {"precision": "int8"},
    "fp16-plugin": {"precision": "fp16", "attention": "plugin"},
    "int8-plugin": {"precision": "int8", "attention": "plugin", "calib_method": "entropy"},
    "int8-plugin-tensorrt": {
        "precision": "int8",
        "attention": "plugin",
        "calib_method": "entropy",
        "calibrator": "tensorrt",
    },
}


def _doctor(bench: Bench) -> str:
    broken = [finding.name for finding in examine() if finding.state == "broken"]
    if broken:
        raise MachineError(f"broken on this machine: {', '.join(broken)}. Run `toolchain doctor` for details.")
    return f"{bench.machine.gpu}, {bench.machine.tag}"


def _build(name: str) -> Check:
    def check(bench: Bench) -> str:
        options = ENGINES[name]
        if "attention" in options:
            _need_plugins(bench, options["precision"])
        target, exported = bench.folder / name, bench.folder / "fp32"
        if exported.exists() and not target.exists():
            shutil.copytree(exported, target)  # so that the model is exported only once
        done = build(bench.recipe.replace(**options, backend="trt", output=str(target)))
        if "lacks" in done:
            raise MachineError(done["lacks"])
        layers = done["engine"]["layers"]
        bench.plans[name] = done["engine"]
        return (
            f"built in {done['engine']['build_s']:g} s, {layers['layers']} layers, {layers['int8_products']} of "
            f"{layers['products']} GEMMs in INT8, {layers['fused_attention']} fused attentions"
        )

    return check


def _need_plugins(bench: Bench, precision: str) -> None:
    """Raise Skip if this TensorRT lacks the attention plugins or implicit INT8, or the plugins reject the model."""
    trt, tag = bench.machine.trt, bench.machine.tag
    if precision == "int8" and not has_implicit_int8(trt):
        raise Skip(f"TensorRT {tag.tensorrt} has no implicit quantization")
    try:
        trt.init_libnvinfer_plugins(make_logger(trt)[0], "")
        plugin_versions(trt, VARIABLE_LENGTH)
        place = open_bundle(bench.bundle("fp32"))
        encoder = parse_encoder(graph.load(place.file("model.onnx")))
        check_packable(encoder, max_length=place.manifest["max_length"], sm=tag.sm, precision=precision)
    except (InputError, MachineError) as error:
        raise Skip(str(error)) from error


def _verify(name: str) -> Check:
    def check(bench: Bench) -> str:
        found = verify.verify(open_probe_graph(bench.bundle(name), {"backend": "trt"}))
        verify.judge(found)
        return f"{len(found['cases'])} cases"

    return check


def _eval(name: str, backend: str, **choices: Any) -> Check:
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


def _gate(name: str) -> Check:
    def check(bench: Bench) -> str:
        place = bench.bundle(name)
        limit = bench.recipe.max_drop if bench.recipe.max_drop is not None else MAX_DROP
        found = next(
            (one for one in bench.results if one["backend"] == "trt" and Path(one["file"]).is_relative_to(place)), None
        )
        if found is None:
            raise Skip(f"{name} was not evaluated")
        record = compare_results([Path(found["file"])], bench.recipe.replace(max_drop=limit), tell=lambda line: None)[0]
        if record["verdict"] == FAILS:
            raise GateError(
                f"the metric drops by {record['drop_points']:.2f} points, and the limit is {limit:g}. "
                "Run `toolchain explain` to see why."
            )
        return f"{record['drop_points']:+.2f} points: {record['verdict']}"

    return check


def _cuda_graphs(bench: Bench) -> str:
    """Compare logits with and without CUDA graphs. Each shape runs twice, because only the second run is a replay."""
    probe = open_probe_graph(bench.bundle("fp16"), {"backend": "trt"})
    batches = [probe.tokens.batch(np.arange(count)) for count in (1, 3, 8)]
    choices = {"device": probe.device, "precision": probe.precision}
    with open_runtime("trt", probe.file, **choices) as infer:
        expected = [infer(batch) for batch in batches]
    with open_runtime("trt", probe.file, cuda_graphs=True, **choices) as infer:
        found = [infer(batch) for batch in batches * 2]
    largest = max(float(np.abs(one - other).max()) for one, other in zip(found, expected * 2, strict=True))
    allowed = verify.INVARIANCE["fp16"] * max(1.0, *(float(np.abs(one).max()) for one in expected))
    if largest > allowed:
        raise GateError(
            f"logits differ by {largest:.2g} with CUDA graphs, and {allowed:.2g} is allowed. Report this bug."
        )
    return f"logits differ by at most {largest:.1e}"


def _second_build(bench: Bench) -> str:
    """Build the FP16 bundle again; every step must be skipped."""
    recipe = bench.recipe.replace(precision="fp16", backend="trt", output=str(bench.bundle("fp16")))
    done = build(recipe)
    if not done["up_to_date"]:
        raise InputError(f"{done['bundle']}: a second build ran {', '.join(done['done'])} again. Report this bug.")
    return "nothing done"


def _foreign_plan(bench: Bench) -> str:
    """Check that a plan is refused for another GPU, and for another version of TensorRT, before it is loaded."""
    place = bench.bundle("fp16")
    plan = open_bundle(place).file(bench.plans["fp16"]["file"])
    for other in (Tag(bench.machine.tag.sm + 1, bench.machine.tag.tensorrt), Tag(bench.machine.tag.sm, "99.0.0.1")):
        try:
            check_plan(plan, other)
        except MachineError:
            continue
        raise InputError(f"{plan}: the plan was accepted for {other}. Report this bug.")
    return "refused"


# Name -> check, in order: the checks of a bundle come after the one that builds it.
CHECKS: dict[str, Check] = {
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
    "second build": _second_build,
    "foreign plan": _foreign_plan,
}
