"""Why an artefact is not faster, or not as accurate: what runs in integers, what is clipped, where error arises."""

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.bundle import last_bundle, open_bundle
from toolchain.checkpoint.tokenize import Tokens
from toolchain.diagnose.probe import ProbeGraph
from toolchain.engine.plan import read_record, rebuild
from toolchain.errors import InputError
from toolchain.evaluation.target import plans
from toolchain.graph import constant
from toolchain.int8.calibrate import read_calibration, stream_activations
from toolchain.int8.coverage import FLOAT_GEMMS, INTEGER_GEMMS, conversions, cover, optimised
from toolchain.int8.sensitivity import decibel, sum_of_squares
from toolchain.records.quantization import ScaleRecord
from toolchain.roofline.kernel_speed import gemm_ratio, share_of_time
from toolchain.runtimes import open_runtime

ROUNDS = 5
CLIPPED = 1e-4
"""Share of a tensor's values beyond its range from which it is named: a percentile of 99.99 clips that many."""

LOW_SNR_DB = 15.0
"""Below it the error of a product is more than a sixth of what it gives."""

NO_KERNEL = "ONNX Runtime has no integer kernel for it on this CPU (it wants a uint8 left input)"

WIN = 1.1
"""A speed-up below it is none."""


def explain(probe: ProbeGraph) -> dict[str, Any]:
    """Look into an artefact on the CPU and return what was found, with advice, as JSON.

    Raises:
        ToolchainError: it cannot be loaded or run.
    """
    model = graph.load(probe.file)
    run = optimised(probe.file)
    flows = _flows(model, probe)
    reference = graph.load(probe.reference) if probe.reference else stripped(graph.load(probe.file))
    products = _products(model, run, flows["macs"], _errors(model, reference, probe.tokens))
    work = {key: sum(one["macs"] for one in products if one[key]) for key in ("integers", "tensorrt", "on_this_cpu")}
    found: dict[str, Any] = {
        "artefact": str(probe.file),
        "precision": probe.precision,
        "rows": probe.rows,
        "reference": _against(probe),
        "products": products,
        "share_of_macs": work,
        "not_finite": flows["broken"],
        "clipped": flows["clipped"],
        "scales": _scales(model, probe.calibration),
        "conversions": {"graph": conversions(model), "on_this_cpu": conversions(run)},
        "smoothing_muls": sum(str(node.name).endswith((".residual", ".smooth")) for node in graph.nodes(model, "Mul")),
        "speed": _speed(probe, work["on_this_cpu"]) if probe.reference else None,
    }
    return {**found, "advice": advise(found)}


def explain_plan(place: Path | None, file: str | None, *, trust: str | None) -> dict[str, Any]:
    """Return what is known of a bundle's engine: the inspector's counts of the day it was built, with advice.

    It is read from plan.json, so neither a GPU nor TensorRT is needed, and nothing of the plan is run.

    Raises:
        InputError: the bundle has no such plan.
    """
    bundle = open_bundle(place or last_bundle(), trust=trust)
    names = plans(bundle)
    if not names:
        raise InputError(f"{bundle.path}: has no engine. {rebuild(bundle.path)}")
    record = read_record(bundle.file(file or names[0]))
    keys = (
        "precision",
        "gpu",
        "sm",
        "tensorrt",
        "layout",
        "profiles",
        "options",
        "layers",
        "missing_scales",
        "build_s",
    )
    found = {"artefact": str(bundle.path / (file or names[0])), **{key: record.get(key) for key in keys}}
    return {**found, "advice": _advise_plan(record)}


def _advise_plan(record: dict[str, Any]) -> list[str]:
    layers, advice = record["layers"], list(record.get("unfused_because") or [])
    if layers["products"] is None:
        return [*advice, "The engine lists bare names only: build it with detailed profiling verbosity to see more."]
    if record["precision"] == "int8" and layers["int8_products"] < layers["products"] / 2:
        advice.append(
            f"{layers['int8_products']} of {layers['products']} products are in INT8: see layers.json for the others."
        )
    if not layers["fused_attention"]:
        advice.append(
            "No fused attention kernel was chosen. Try --attention plugin (TensorRT 10), or a later TensorRT."
        )
    if layers["reformats"] > layers["products"] / 4:
        advice.append(f"{layers['reformats']} layers only change formats; each reads and writes its tensor once more.")
    return advice or ["Nothing stands out."]


def _against(probe: ProbeGraph) -> str:
    if probe.reference:
        return "model.onnx"
    return "itself without Q/DQ of activations" if probe.precision == "int8" else "nothing: no other graph is here"


def _products(model: ir.Model, run: ir.Model, macs: dict[str, float], errors: dict[str, float]) -> list[dict[str, Any]]:
    """Return each product: how the graph has it, how this CPU runs it, its work and its error."""
    floats = {str(node.name) for node in run.graph if node.op_type in FLOAT_GEMMS}
    outputs = {str(value.name) for node in run.graph if node.op_type in FLOAT_GEMMS for value in node.outputs}
    made = {str(node.name): str(node.outputs[0].name) for node in graph.nodes(model, "MatMul", "Gemm")}
    total = sum(macs.values()) or 1.0
    products = []
    for one in cover(model):
        in_float = one.name in floats or made.get(one.name) in outputs or not one.integers
        reason = one.reason
        if one.integers and in_float:
            reason = f"{reason}; {NO_KERNEL}" if reason else NO_KERNEL
        products.append(
            {
                **one.to_json(),
                "on_this_cpu": not in_float,
                "reason": reason,
                "macs": macs.get(one.name, 0.0) / total,
                "snr_db": errors.get(one.name),
            }
        )
    return products


def _flows(model: ir.Model, probe: ProbeGraph) -> dict[str, Any]:
    """Run the rows; return the work of each product, and the tensors that go beyond the range they are quantised in."""
    products = {str(node.name): node for node in graph.nodes(model, "MatMul", "Gemm", *sorted(INTEGER_GEMMS))}
    quantized = {
        value: _limits(node)
        for node in graph.nodes(model, "QuantizeLinear")
        if (value := _produced(node)) and _limits(node)
    }
    left = {name: first for name, node in products.items() if (first := _produced(node))}
    output = {name: str(node.outputs[0].name) for name, node in products.items()}
    macs, broken = dict.fromkeys(products, 0.0), set()
    beyond, count, reach = (dict.fromkeys(quantized, 0.0) for _ in range(3))
    wanted = list(dict.fromkeys([*output.values(), *left.values(), *quantized]))
    for values in stream_activations(model, wanted, probe.tokens, text="looking at values"):
        for name in left:
            macs[name] += values[output[name]].size * values[left[name]].shape[-1]
            if not np.isfinite(values[output[name]]).all():
                broken.add(name)
        for name, limits in quantized.items():
            assert limits
            low, high = limits
            array = values[name]
            count[name] += array.size
            beyond[name] += float(((array < low) | (array > high)).sum())
            edge = array.max() / high if array.max() > -array.min() or not low else array.min() / low
            reach[name] = max(reach[name], float(edge))
    clipped = [
        {"tensor": name, "share": beyond[name] / count[name], "reach": reach[name]}
        for name in quantized
        if beyond[name] / count[name] >= CLIPPED
    ]
    return {"macs": macs, "broken": sorted(broken), "clipped": sorted(clipped, key=lambda one: -float(one["share"]))}


def _scales(model: ir.Model, calibration: Path | None) -> list[ScaleRecord]:
    """Return the measured amax and the scale in the graph of each quantized activation, in graph order."""
    ranges = read_calibration(calibration).ranges if calibration else {}
    found: dict[str, ScaleRecord] = {}
    for node in graph.nodes(model, "QuantizeLinear"):
        scale, name = constant(node.inputs[1]), _produced(node)
        if name and scale is not None and scale.size == 1:
            amax = ranges[name].amax if name in ranges else None
            found[name] = {"tensor": name, "amax": amax, "scale": float(scale.item())}
    return list(found.values())


def _produced(node: ir.Node) -> str | None:
    """Return the name of a node's first input, if another node makes it: only that can be looked at."""
    value = node.inputs[0]
    return str(value.name) if value is not None and value.producer() is not None and constant(value) is None else None


def _limits(node: ir.Node) -> tuple[float, float] | None:
    """Return the smallest and the largest number that a QuantizeLinear keeps, each with a step beyond."""
    scale, zero = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else np.uint8(0)
    if scale is None or zero is None or scale.size != 1:
        return None
    info, step, middle = np.iinfo(zero.dtype), float(scale.item()), int(zero.item())
    return (info.min - 1 - middle) * step, (info.max + 1 - middle) * step


def stripped(model: ir.Model) -> ir.Model:
    """Return a Q/DQ graph without those of its activations: the float graph that it stands for."""
    for node in graph.nodes(model, "DequantizeLinear"):
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if source is not None and source.op_type == "QuantizeLinear" and source.inputs[0] is not None:
            node.outputs[0].replace_all_uses_with(source.inputs[0], replace_graph_outputs=True)
    return model


def _errors(model: ir.Model, reference: ir.Model, tokens: Tokens) -> dict[str, float]:
    """Return the signal-to-noise ratio of each product's output, dB, against the reference's of the same name."""
    kinds = ("MatMul", "Gemm", *sorted(INTEGER_GEMMS))
    outputs = {str(node.name): str(node.outputs[0].name) for node in graph.nodes(model, *kinds)}
    known = {str(value.name) for node in reference.graph for value in node.outputs}
    names = {name: output for name, output in outputs.items() if output in known}
    if not names:
        return {}
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    both = (
        stream_activations(one, list(dict.fromkeys(names.values())), tokens, text="comparing")
        for one in (model, reference)
    )
    for found, expected in zip(*both, strict=True):
        for name, output in names.items():
            wanted = expected[output][tuple(map(slice, found[output].shape))]  # or only the first token of it
            signal[name] += sum_of_squares(wanted)
            noise[name] += sum_of_squares(found[output] - wanted)
    return {name: decibel(signal[name], noise[name]) for name in names if noise[name] > 0}


def _speed(probe: ProbeGraph, integer_share: float) -> dict[str, float]:
    """Measure the speed-up over FP32 on these rows, and predict the best by Amdahl's law (AFIPS, 1967)."""
    assert probe.reference
    tokens = probe.tokens
    batch = tokens.batch(np.argsort(tokens.lengths)[-min(32, len(tokens)) :])
    times: dict[Path, list[float]] = {probe.reference: [], probe.file: []}
    for file in (probe.reference, probe.file) * 2:  # twice, the other way round as it were: interleaved
        with open_runtime("ort", file, device="cpu") as infer:
            infer(batch)
            for _ in range(ROUNDS):
                start = time.perf_counter()
                infer(batch)
                times[file].append(time.perf_counter() - start)
    products = share_of_time(probe.reference, batch)
    ratio, moved = gemm_ratio(), products * integer_share
    return {
        "measured": statistics.median(times[probe.reference]) / statistics.median(times[probe.file]),
        "products_share_of_fp32_time": products,
        "integer_to_float_product_speed": ratio,
        "predicted_best": 1 / (1 - moved + moved / ratio),
    }


def advise(found: dict[str, Any]) -> list[str]:
    """Return what to do, most important first."""
    work, speed = found["share_of_macs"], found["speed"]
    advice = []
    if found["not_finite"]:
        advice.append(f"{found['not_finite'][0]} gives NaN or infinity: do not use this graph; build it again.")
    if found["precision"] != "int8":
        advice.append(f"{found['precision']}: no product is in integers. For INT8: toolchain build --precision int8.")
    elif work["integers"] < 0.9:
        advice.append(
            "Less than nine tenths of the work is in integers: build it with toolchain build --precision int8."
        )
    elif work["tensorrt"] < 0.1:
        advice.append("For this CPU only: TensorRT takes int8 with zero point 0, as in a bundle's model.int8.onnx.")
    if found["clipped"] and found["clipped"][0]["share"] > 10 * CLIPPED:
        worst = found["clipped"][0]
        advice.append(
            f"{worst['tensor']} loses {worst['share']:.1%} of its values beyond its range: "
            "calibrate with --calib-method auto, or on rows like those that are served."
        )
    noisy = [one for one in found["products"] if one["integers"] and (one["snr_db"] or np.inf) < LOW_SNR_DB]
    if noisy:
        worst = min(noisy, key=lambda one: float(one["snr_db"]))
        advice.append(
            f"The error is largest at {worst['name']} ({worst['snr_db']:.0f} dB): smooth with --smooth 0.7 "
            "or --calib-method auto; toolchain tune says what to keep out of INT8."
        )
    if speed and found["precision"] == "int8" and speed["measured"] < WIN:
        if work["on_this_cpu"] < work["integers"]:
            advice.append(
                "Not faster on this CPU, which runs int8 x int8 in float: evaluate model.int8.cpu.onnx here; "
                "TensorRT runs this graph in integers."
            )
        else:
            advice.append("Not faster here: use FP16 on a GPU or FP32 on this CPU, unless memory is what counts.")
    return advice or ["Nothing to mend was found."]
