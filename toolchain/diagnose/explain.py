"""Find why an artefact is slow or inaccurate: GEMMs in float, clipped values, errors of GEMMs; give advice."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.base.progress import still
from toolchain.bundle import last_bundle, open_bundle
from toolchain.checkpoint.tokenize import Tokens, batches_of
from toolchain.diagnose.probe import ProbeGraph
from toolchain.engine.plan import RECORD, TURING, Tag, plan_backend, plans_of, read_record, rebuild
from toolchain.engine.releases import RELEASES
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.speed_up import speed_up
from toolchain.graph import constant
from toolchain.graph.first_token import FIRST
from toolchain.graph.fp16 import MAX
from toolchain.graph.halves import has_halves
from toolchain.int8.calibrate import read_calibration, stream_activations
from toolchain.int8.coverage import FP8_ON_A_CPU, INTEGER_GEMMS, OnThisCpu, conversions, cover, on_this_cpu
from toolchain.int8.sensitivity import decibel, sum_of_squares
from toolchain.meters.contention import ContentionMeter
from toolchain.profile.roofline.kernel_speed import gemm_ratio, share_of_time
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.check import find_fault
from toolchain.records.explain import (
    ClippedTensor,
    ExplainedGemm,
    ExplainedPlan,
    ExplainRecord,
    Float16Facts,
    HalfTensor,
    MacShares,
    SpeedUp,
)
from toolchain.records.plan import LayerCounts, PlanRecord
from toolchain.records.quantization import ScaleRecord
from toolchain.runtimes import open_runtime
from toolchain.runtimes.half_range import MARGIN, describe_sums, measure_range

# Fraction of values outside its range with which a tensor is listed. percentile-99.99 clips this fraction on purpose.
CLIPPED = 1e-4

# Signal-to-noise ratio in dB. Below it, the error of a GEMM is more than a sixth of its output.
LOW_SNR_DB = 15.0

# Number of float16 tensors that are listed: those with the largest values.
WORST = 10

# Limit in steps of the scale. The largest number of E4M3 is 448, and its numbers there are 32 apart: 448 + 32.
FP8_END = 480

# A smaller speed-up counts as none, because it is within the noise of the timing.
MIN_SPEED_UP = 1.1


@dataclass(frozen=True)
class Activations:
    """Facts about the activations of a graph, measured by running the rows.

    `macs`: node name -> multiply-accumulate operations. `not_finite`: names of GEMMs with NaN or infinity in their
    output. `clipped`: tensors with values beyond the range in which they are quantized, worst first.
    """

    macs: dict[str, float]
    not_finite: list[str]
    clipped: list[ClippedTensor]


def explain(probe: ProbeGraph) -> ExplainRecord:
    """Run a graph on the CPU; return facts about its GEMMs, activations, scales and speed, with advice.

    Raises:
        ToolchainError: the graph cannot be loaded or run.
    """
    model = graph.load(probe.file)
    here = on_this_cpu(probe.file, probe.backend)
    here = replace(here, why=FP8_ON_A_CPU) if probe.precision == "fp8" else here
    activations = _measure_activations(model, probe)
    reference = graph.load(probe.reference) if probe.reference else without_activation_qdq(graph.load(probe.file))
    gemms = _gemms(model, here, activations.macs, _snr_db(model, reference, probe.tokens))
    shares: MacShares = {
        "integers": sum(one["macs"] for one in gemms if one["integers"]),
        "tensorrt": sum(one["macs"] for one in gemms if one["tensorrt"]),
        "on_this_cpu": sum(one["macs"] for one in gemms if one["on_this_cpu"]),
    }
    record: ExplainRecord = {
        "artefact": str(probe.file),
        "precision": probe.precision,
        "rows": probe.rows,
        "reference": _reference_name(probe),
        "products": gemms,
        "share_of_macs": shares,
        "not_finite": activations.not_finite,
        "clipped": activations.clipped,
        **_float16(model, probe.tokens),
        "scales": _scales(model, probe.calibration),
        "conversions": {"graph": conversions(model), "on_this_cpu": here.conversions},
        "smoothing_muls": sum(str(node.name).endswith((".residual", ".smooth")) for node in graph.nodes(model, "Mul")),
        "speed": _speed(probe, shares["on_this_cpu"]) if probe.reference and probe.precision != "fp8" else None,
        "advice": [],
    }
    return {**record, "advice": advise(record)}


def explain_plan(place: Path | None, file: str | None, *, backend: str, trust: str | None) -> ExplainedPlan:
    """Return what the build recorded about a bundle's engine, such as its kinds of layers, and advice.

    Only plan.json is read, so neither a GPU nor TensorRT is needed, and the plan is not loaded. `place` is the bundle,
    by default the one built last; `file` is the plan, by default the first one of `backend`, a key of RELEASES.

    Raises:
        InputError: the bundle has no such plan, or its record is broken.
        UsageError: the file is not a plan of this backend.
    """
    bundle, release = open_bundle(place or last_bundle(), trust=trust), RELEASES[backend]
    names = plans_of(bundle.manifest["artefacts"], backend)
    if file is not None and plan_backend(file) != backend:
        raise UsageError(f"--file {file}: this is not a plan of {release.name}. Leave out --backend.")
    if not names:
        how = rebuild(bundle.path, Tag(TURING, "", backend) if release.cross else None)
        raise InputError(f"{bundle.path}: the bundle has no engine of {release.name}. {how}")
    plan = bundle.file(file or names[0])
    record = read_record(plan)
    if fault := find_fault(record, PlanRecord):
        raise InputError(f"{plan.with_name(RECORD)}: the plan's record is broken ({fault}). Build the plan again.")
    return {
        "artefact": str(plan),
        "backend": backend,
        "precision": record["precision"],
        "gpu": record["gpu"],
        "sm": record["sm"],
        "tensorrt": record["tensorrt"],
        "layout": record["layout"],
        "profiles": record["profiles"],
        "options": record["options"],
        "layers": record["layers"],
        "missing_scales": record["missing_scales"],
        "build_s": record["build_s"],
        "advice": _advise_plan(record, backend, bundle.path),
    }


def _advise_plan(record: PlanRecord, backend: str, bundle: Path) -> list[str]:
    layers, advice = record["layers"], [*record.get("unfused_because", []), *record.get("not_as_asked", [])]
    gemms, reformats = layers["products"], layers["reformats"]
    if gemms is None or reformats is None:
        return [
            *advice,
            "The engine lists only the names of its layers: it was built without detailed profiling verbosity.",
        ]
    if (kind := QUANTIZED.get(record["precision"])) and (found := _quantized_products(layers)) < gemms / 2:
        advice.append(f"Only {found} of {gemms} GEMMs run in {kind.title}: layers.json lists the others.")
    if not layers["fused_attention"]:
        plugin = "" if RELEASES[backend].cross else " Try --attention plugin (TensorRT 10), or a later TensorRT."
        advice.append(f"The builder chose no fused attention kernel.{plugin}")
    if reformats > gemms / 4:
        advice.append(f"{reformats} layers only change a tensor's format, which costs one more read and write each.")
    advice = advice or ["Nothing unusual was found."]
    if RELEASES[backend].cross:
        advice.append(
            f"layers.json beside the plan lists its kernels. For lower bounds of their time, run: toolchain explain "
            f"{bundle} --target sm{record['sm']}."
        )
    return advice


def _quantized_products(layers: LayerCounts) -> int:
    return (layers["int8_products"] or 0) + layers.get("fp8_products", 0)


def _reference_name(probe: ProbeGraph) -> str:
    if probe.reference:
        return "model.onnx"
    return "itself without Q/DQ of activations" if probe.precision in QUANTIZED else "nothing: no other graph is here"


def _gemms(model: ir.Model, here: OnThisCpu, macs: dict[str, float], snr_db: dict[str, float]) -> list[ExplainedGemm]:
    """Return, for each GEMM, whether it runs in integers here and in TensorRT, its share of the work, and its error."""
    output_of = {str(node.name): str(node.outputs[0].name) for node in graph.nodes(model, "MatMul", "Gemm")}
    total = sum(macs.values()) or 1.0
    found: list[ExplainedGemm] = []
    for one in cover(model):
        in_float = bool({one.name, output_of.get(one.name)} & here.in_float) or not one.integers
        no_kernel = here.why if one.integers and in_float else None
        found.append(
            {
                **one.to_json(),
                "on_this_cpu": not in_float,
                "reason": "; ".join(filter(None, [one.reason, no_kernel])) or None,
                "macs": macs.get(one.name, 0.0) / total,
                "snr_db": snr_db.get(one.name),
            }
        )
    return found


def _measure_activations(model: ir.Model, probe: ProbeGraph) -> Activations:
    """Run the rows; return the work of each GEMM, which outputs are not finite, and which tensors are clipped."""
    gemms = {str(node.name): node for node in graph.nodes(model, "MatMul", "Gemm", *sorted(INTEGER_GEMMS))}
    limits_of: dict[str, tuple[float, float]] = {}
    for node in graph.nodes(model, "QuantizeLinear"):
        name, limits = _computed_input(node), _limits(node)
        if name and limits:
            limits_of[name] = limits
    left = {name: first for name, node in gemms.items() if (first := _computed_input(node))}
    output = {name: str(node.outputs[0].name) for name, node in gemms.items()}
    macs, not_finite = dict.fromkeys(gemms, 0.0), set()
    beyond, count, reach = (dict.fromkeys(limits_of, 0.0) for _ in range(3))
    wanted = list(dict.fromkeys([*output.values(), *left.values(), *limits_of]))
    for values in stream_activations(model, wanted, probe.tokens, text="measuring activations"):
        for name in left:
            macs[name] += values[output[name]].size * values[left[name]].shape[-1]
            if not np.isfinite(values[output[name]]).all():
                not_finite.add(name)
        for name, (low, high) in limits_of.items():
            array = values[name]
            count[name] += array.size
            beyond[name] += float(((array < low) | (array > high)).sum())
            edge = array.max() / high if array.max() > -array.min() or not low else array.min() / low
            reach[name] = max(reach[name], float(edge))
    shares = {name: beyond[name] / count[name] for name in limits_of}
    worst = sorted((name for name in limits_of if shares[name] >= CLIPPED), key=lambda name: -shares[name])
    clipped: list[ClippedTensor] = [{"tensor": name, "share": shares[name], "reach": reach[name]} for name in worst]
    return Activations(macs, sorted(not_finite), clipped)


def _float16(model: ir.Model, tokens: Tokens) -> Float16Facts:
    """Run the rows; return the largest values and sums that float16 must represent; empty without float16 tensors."""
    if not has_halves(model):
        return {"float16": [], "large_sums": []}
    reached = measure_range(model, tokens)
    worst = sorted(reached.largest.items(), key=lambda item: -item[1])[:WORST]
    tensors: list[HalfTensor] = [{"tensor": name, "amax": amax, "share": amax / MAX} for name, amax in worst]
    return {"float16": tensors, "large_sums": reached.large_sums()}


def _scales(model: ir.Model, calibration: Path | None) -> list[ScaleRecord]:
    """Return, for each quantized activation, its amax from calibration (or None) and its scale in the graph."""
    ranges = read_calibration(calibration).ranges if calibration else {}
    found: dict[str, ScaleRecord] = {}
    for node in graph.nodes(model, "QuantizeLinear"):
        scale, name = constant(node.inputs[1]), _computed_input(node)
        if name and scale is not None and scale.size == 1:
            name = name.removesuffix(FIRST)  # the first token's tensor has the scale of the whole tensor
            amax = ranges[name].amax if name in ranges else None
            found[name] = {"tensor": name, "amax": amax, "scale": float(scale.item())}
    return list(found.values())


def _computed_input(node: ir.Node) -> str | None:
    """Return the name of a node's first input if another node computes it; None for a graph input or a constant."""
    value = node.inputs[0]
    return str(value.name) if value is not None and value.producer() is not None and constant(value) is None else None


def _limits(node: ir.Node) -> tuple[float, float] | None:
    """Return the range that a QuantizeLinear does not clip, widened by one scale; None without a constant scale."""
    scale, zero = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else np.uint8(0)
    if scale is None or zero is None or scale.size != 1:
        return None
    step, middle = float(scale.item()), int(zero.item())
    if str(zero.dtype) == "float8_e4m3fn":
        return -FP8_END * step, FP8_END * step
    info = np.iinfo(zero.dtype)
    return (info.min - 1 - middle) * step, (info.max + 1 - middle) * step


def without_activation_qdq(model: ir.Model) -> ir.Model:
    """Remove the Q/DQ pairs of activations from a graph in place, so that they are in float; return the graph."""
    for node in graph.nodes(model, "DequantizeLinear"):
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if source is None or source.op_type != "QuantizeLinear" or source.inputs[0] is None:
            continue
        value = source.inputs[0]
        before, after = (one.inputs[1].dtype for one in (source, node) if one.inputs[1] is not None)
        if after is not None and before != after:  # the scales have the types of the pair's input and output
            cast = ir.node("Cast", [value], {"to": int(after)}, name=f"{node.name}.cast")
            model.graph.insert_before(node, cast)
            value = cast.outputs[0]
        node.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
    return model


def _snr_db(model: ir.Model, reference: ir.Model, tokens: Tokens) -> dict[str, float]:
    """Return the signal-to-noise ratio of each GEMM's output in dB; the signal is the same output of the reference."""
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
            wanted = expected[output][tuple(map(slice, found[output].shape))]  # the graph may compute one token only
            signal[name] += sum_of_squares(wanted)
            noise[name] += sum_of_squares(found[output] - wanted)
    return {name: decibel(signal[name], noise[name]) for name in names if noise[name] > 0}


def _speed(probe: ProbeGraph, integer_share: float) -> SpeedUp:
    """Return the measured speed-up over FP32, and the one that faster GEMMs give by Amdahl's law (AFIPS, 1967)."""
    assert probe.reference
    tokens, contention = probe.tokens, ContentionMeter()
    contention.start()
    with still():
        with (
            open_runtime(probe.backend, probe.reference, device="cpu") as first,
            open_runtime(probe.backend, probe.file, device="cpu") as other,
        ):
            measured = speed_up(first, other, tokens)
        gemm_share = share_of_time(probe.reference, tokens.batch(next(batches_of(tokens, 32))))
        ratio = gemm_ratio()
    moved = gemm_share * integer_share
    return {
        "measured": measured,
        "products_share_of_fp32_time": gemm_share,
        "integer_to_float_product_speed": ratio,
        "predicted_best": 1 / (1 - moved + moved / ratio),
        "busy": contention.stop()["busy"],
    }


def advise(record: ExplainRecord) -> list[str]:
    """Return advice on what to do, the most important first."""
    found = [*_advise_types(record), *_advise_accuracy(record), *_advise_speed(record)]
    return found or ["Nothing to fix was found."]


def _advise_types(record: ExplainRecord) -> list[str]:
    shares, advice = record["share_of_macs"], []
    if record["not_finite"]:
        advice.append(f"GEMM {record['not_finite'][0]} gives NaN or infinity: do not use this graph; build it again.")
    if record["precision"] == "fp8":
        advice.append("FP8 runs on GPUs of compute capability 8.9 or later; a CPU and a T4 compute it in float.")
    elif record["precision"] != "int8":
        advice.append(f"{record['precision']}: no GEMM is in integers. For INT8: toolchain build --precision int8.")
    elif shares["integers"] < 0.9:
        advice.append(
            "Less than nine tenths of the work is in integers. To change this: toolchain build --precision int8."
        )
    elif shares["tensorrt"] < 0.1:
        advice.append(
            "This graph is for CPUs only: TensorRT needs int8 with zero point 0, as in a bundle's model.int8.onnx."
        )
    return advice


def _advise_accuracy(record: ExplainRecord) -> list[str]:
    advice = _advise_float16(record)
    if record["clipped"] and record["clipped"][0]["share"] > 10 * CLIPPED:
        worst_tensor = record["clipped"][0]
        advice.append(
            f"{worst_tensor['tensor']} has {worst_tensor['share']:.1%} of its values outside its calibration range: "
            "calibrate with --calib-method auto, or on rows like those in production."
        )
    snr_db = {one["name"]: one["snr_db"] for one in record["products"] if one["integers"] and one["snr_db"]}
    if snr_db and min(snr_db.values()) < LOW_SNR_DB:
        worst = min(snr_db, key=snr_db.__getitem__)
        found = "toolchain tune finds which GEMMs to exclude from INT8"
        exclude = found if record["precision"] == "int8" else "--keep excludes GEMMs"  # tune supports only INT8
        advice.append(
            f"GEMM {worst} has the largest error (signal-to-noise ratio {snr_db[worst]:.0f} dB): smooth with "
            f"--smooth 0.7 or --calib-method auto; {exclude}."
        )
    return advice


def _advise_float16(record: ExplainRecord) -> list[str]:
    advice = []
    if record["float16"] and record["float16"][0]["share"] > 1 / MARGIN:
        worst = record["float16"][0]
        advice.append(
            f"{worst['tensor']} reaches {worst['amax']:.2g}, and float16 ends at {MAX:,.0f}: build again with rows "
            "like these (--data), so that such tensors stay in float32."
        )
    if record["large_sums"]:
        advice.append(f"{record['artefact']}: {describe_sums(record['large_sums'])}.")
    return advice


def _advise_speed(record: ExplainRecord) -> list[str]:
    speed, shares = record["speed"], record["share_of_macs"]
    if not speed or record["precision"] != "int8" or speed["measured"] >= MIN_SPEED_UP:
        return []
    if shares["on_this_cpu"] < shares["integers"]:
        return [
            "The graph is not faster than FP32, because this CPU runs some INT8 GEMMs in float. Evaluate "
            "model.int8.cpu.onnx with --backend ort here; model.int8.onnx is for TensorRT."
        ]
    return ["The graph is not faster than FP32 here: use FP16 on a GPU or FP32 on this CPU, unless memory is short."]
