"""Acceptance checks of TensorRT releases: INT8 GEMMs with sums outside float16's range, and plans of TensorRT-RTX."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from toolchain.accept.bench import Bench, Check, Skip
from toolchain.base.files import write_bytes, write_json
from toolchain.base.tensors import Array
from toolchain.bundle.build import build
from toolchain.bundle.machine import Machine, find_machine
from toolchain.diagnose import verify
from toolchain.diagnose.probe import open_probe_graph
from toolchain.engine.builder import Builder
from toolchain.engine.config import Options
from toolchain.engine.cuda import open_gpu
from toolchain.engine.plan import PLAN, RECORD, SCHEMA
from toolchain.engine.releases import RELEASES
from toolchain.engine.shapes import Profile
from toolchain.engine.targets import compute_capabilities
from toolchain.errors import GateError, MachineError
from toolchain.runtimes import open_runtime
from toolchain.workflow import evaluate

# The GEMM multiplies [ROWS, WIDTH] by [WIDTH, COLUMNS]. Its largest possible sum is WIDTH * 127 * 127, or 16.5 million,
# far outside float16's range, which ends at 65,504.
ROWS, WIDTH, COLUMNS = 32, 1024, 64

# The scale of the activations. With the scales of the weights, which are around 2e-4, it makes the results small enough
# for float16.
SCALE = np.float16(0.03125)

# Largest allowed error, as a fraction of the largest result. float16 has 11 significant bits, and the scales are
# rounded too.
TOLERANCE = 0.01


def integer_gemm() -> tuple[bytes, Array]:
    """Return a graph of one INT8 GEMM with a scale for each column, and its exact results, float32 [ROWS, COLUMNS].

    It has the inputs and outputs of an encoder, so that the runtime of plans can run it: `input_ids` [batch, length]
    choose rows of a float16 table, and `logits` are the results for the first token.
    """
    random = np.random.default_rng(0)
    levels = random.integers(90, 128, (ROWS, WIDTH)).astype(np.int8)
    weight = random.integers(-127, 128, (WIDTH, COLUMNS)).astype(np.int8)
    weight[:, ::2] = np.abs(weight[:, ::2])  # only positive products, so that the sums are large
    scales = random.uniform(1e-4, 3e-4, COLUMNS).astype(np.float16)
    bias = random.normal(size=COLUMNS).astype(np.float16)
    sums = levels.astype(np.int32) @ weight.astype(np.int32)
    expected = sums * np.float32(SCALE) * scales.astype(np.float32) + bias.astype(np.float32)
    constants = {
        "table": levels.astype(np.float16) * SCALE,
        "scale": SCALE,
        "weight": weight,
        "scales": scales,
        "bias": bias,
        "first": np.array(0, np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"], name="rows"),
        helper.make_node("QuantizeLinear", ["x", "scale"], ["x_int8"], name="quantize"),
        helper.make_node("DequantizeLinear", ["x_int8", "scale"], ["x_half"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["weight", "scales"], ["w_half"], name="weights", axis=1),
        helper.make_node("MatMul", ["x_half", "w_half"], ["product"], name="gemm"),
        helper.make_node("Add", ["product", "bias"], ["sum"], name="bias_add"),
        helper.make_node("Gather", ["sum", "first"], ["token"], name="first_token", axis=1),
        helper.make_node("Cast", ["token"], ["logits"], name="cast", to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "integer_gemm",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", COLUMNS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString(), expected


def run_gemm(machine: Machine, folder: Path) -> tuple[Array, Array]:
    """Build a plan of the graph of `integer_gemm` below `folder`, run it, and return its and the exact results."""
    data, expected = integer_gemm()
    profile = Profile((1, ROWS, ROWS), (1, 1, 1))
    options = Options(target=machine.tag.sm if machine.release.cross else None)
    with open_gpu(str(machine.device)):
        builder = Builder(machine.trt, "integer_gemm")
        network = builder.parse(data, strongly_typed=True)
        built = builder.build(network, [profile.padded(["input_ids"])], options, timing=None)
    place = folder / machine.tag.folder
    record = {
        "schema": SCHEMA,
        "backend": machine.tag.backend,
        "sm": machine.tag.sm,
        "tensorrt": machine.tag.tensorrt,
        "plan_sha256": hashlib.sha256(built.plan).hexdigest(),
        "version_compatible": False,
        "profiles": [profile.to_json()],
        "layout": "padded",
        "precision": "int8",
    }
    write_bytes(place / PLAN, built.plan)
    write_json(place / RECORD, record)
    rows = np.arange(ROWS, dtype=np.int32)[:, None]
    with open_runtime(machine.tag.backend, place / PLAN, device=machine.device) as infer:
        return infer({"input_ids": rows, "attention_mask": np.ones_like(rows)}), expected


def judge_sums(found: Array, expected: Array) -> tuple[bool, str]:
    """Return whether the results are right within TOLERANCE, and a text about their largest error."""
    if not np.isfinite(found).all():
        return False, f"{int((~np.isfinite(found)).sum())} of {found.size} results are infinite or NaN"
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    return error <= TOLERANCE, f"the largest error is {error:.2%} of the largest result"


def _sums(bench: Bench) -> str:
    """Compare an INT8 GEMM whose integer sums exceed float16 with its exact results.

    They are right only if TensorRT scales the sums before it stores them in float16.
    """
    if bench.machine.release.flags:
        raise Skip(f"{bench.machine.release.name} has no strongly typed networks")
    right, text = judge_sums(*run_gemm(bench.machine, bench.folder / "sums"))
    if not right:
        raise GateError(f"INT8 GEMMs with sums above 65,504: {text}. Use --precision fp16, and report this bug.")
    return text


def _rtx_machine(bench: Bench) -> Machine:
    """Return this machine with TensorRT-RTX in the place of TensorRT.

    Raises:
        Skip: TensorRT-RTX is not installed, or does not compile for this GPU.
    """
    try:
        machine = find_machine(bench.recipe.device, "trt-rtx")
    except MachineError as error:
        raise Skip(str(error)) from error
    if machine.tag.sm not in compute_capabilities(machine.trt):
        raise Skip(f"TensorRT-RTX does not compile for compute capability {machine.tag.sm / 10}")
    return machine


def _rtx_sums(bench: Bench) -> str:
    """Report whether the sums of `_sums` overflow with TensorRT-RTX.

    An overflow is not a failure, because the graphs that are made for TensorRT-RTX avoid such sums.
    """
    right, text = judge_sums(*run_gemm(_rtx_machine(bench), bench.folder / "sums"))
    return text if right else f"the sums overflow, which model.int8.rtx.onnx avoids: {text}"


def _rtx_build(bench: Bench) -> str:
    machine, place = _rtx_machine(bench), bench.bundle("int8")
    absent = {name: None for name in RELEASES["trt-rtx"].lacks if name in ("buckets", "optimization_level")}
    recipe = bench.recipe.replace(
        **absent,
        version_compatible=False,
        hardware_compatible="none",
        precision="int8",
        backend="trt-rtx",
        target=f"sm{machine.tag.sm}",
        output=str(place),
    )
    record = build(recipe)["engine"]
    layers = record["layers"]
    bench.plans["int8-rtx"] = record
    return f"{layers['layers']} kernels, {layers['int8_products']} of {layers['products']} GEMMs in INT8"


def _with_plan(bench: Bench) -> Path:
    bench.bundle("int8-rtx")  # raises Skip if it was not built
    return bench.folder / "int8"


def _rtx_verify(bench: Bench) -> str:
    found = verify.verify(open_probe_graph(_with_plan(bench), {"backend": "trt-rtx"}))
    verify.judge(found)
    return f"{len(found['cases'])} cases"


def _rtx_eval(bench: Bench) -> str:
    result = evaluate({"backend": "trt-rtx", "limit": bench.recipe.limit}, bundle=_with_plan(bench))
    bench.results.append(result)
    return f"{result['primary']} {result['metrics'][result['primary']]:.4f}, {result['throughput_per_s']:.0f} rows/s"


# Name -> check. They run after the checks of engines, which build the bundle that they use.
CHECKS: dict[str, Check] = {
    "integer sums": _sums,
    "integer sums trt-rtx": _rtx_sums,
    "build trt-rtx int8": _rtx_build,
    "verify trt-rtx int8": _rtx_verify,
    "eval trt-rtx int8": _rtx_eval,
}
