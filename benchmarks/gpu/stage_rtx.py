"""Stage `rtx`: does TensorRT-RTX run on this GPU, are our graphs right on it, and does it overflow in large sums?

    python3 kit.py run rtx [--seconds 200] [--only STEP,...] [--dry]

1. `target X` builds a plan of the demo's INT8 graph for the compute capability X, such as SM86. It reports whether the
   runtime calls the plan valid, whether the plan loads, and how its logits compare with ONNX Runtime's.
2. `sums` runs one INT8 GEMM whose INT32 sums exceed 65,504, the largest float16 number. It runs three times: with
   a weight scale per channel, with one scale, and with one scale and a Mul after the GEMM. A kernel that adds in
   float16 overflows here.
3. `run` compares FP16 and INT8 graphs of the demo and of sst2 with ONNX Runtime's logits, and times them.

Without a GPU, `--dry` only builds the plans and lists their kernels.
"""

import ctypes
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from kit import HOME, OUT, Stage, install, machine
from numpy.typing import NDArray
from stage_torch import arguments

KIT = Path(os.environ["KIT"])
TARGETS = ("default", "CURRENT", "SM80", "SM86", "SM89", "SM120")
# Targets that are tried only if no target before them ran, to save time.
OTHER_TARGETS = ("SM86", "SM89", "SM120")
# Bit of EngineInvalidityDiagnostics in TensorRT-RTX's header -> the reason why a plan is invalid.
INVALID = {
    1: "version",
    2: "UNSUPPORTED_CC",
    4: "driver too old",
    8: "runtime too old",
    16: "memory",
    32: "malformed",
    64: "CUDA error",
}
# The largest float16 number.
HALF_MAX = 65504
INPUTS = ("input_ids", "attention_mask")
TOKEN_SHAPES = {"*": ((1, 8), (32, 64), (64, 64))}
SUMS_SHAPES = {"*": ((1, 256), (64, 256), (64, 256))}


def import_rtx() -> Any:
    """Install TensorRT-RTX's bindings if necessary, load its libraries, and return the module of the bindings.

    Raises:
        RuntimeError: pip cannot install the bindings.
    """
    site = HOME / "site-rtx"
    if not (site / "tensorrt_rtx_bindings").exists() and (error := install(KIT / "wheels", site)):
        raise RuntimeError(error)
    for name in ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"):
        ctypes.CDLL(str(KIT / "libs" / name), mode=ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(site))
    import tensorrt_rtx_bindings

    return tensorrt_rtx_bindings


def make_logger(trt: Any) -> Any:
    """Return a logger for TensorRT-RTX that keeps what it logs.

    `lines` has its errors and warnings, and `kernels` the kernels of the plan that was built last.
    """

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.kernels: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR", "WARNING"):
                self.lines.append(f"{severity.name}: {' '.join(message.split())[:300]}")
            elif message.startswith("Layers:"):
                lines = [line for line in message.split("\n\n")[0].splitlines() if ", LayerType: " in line]
                self.kernels = [
                    line.split(", LayerType: ")[1].split(",")[0] + " " + line[6:60].split(",")[0] for line in lines
                ]

    return Logger()


def build(trt: Any, logger: Any, graph: bytes, target: str, shapes: dict[str, tuple[Any, ...]]) -> bytes:
    """Build a plan of an ONNX graph for one target, and return it.

    `target` is one of TARGETS. `shapes` maps an input to its smallest, optimal and largest shape; `*` stands for all
    inputs that it does not name.

    Raises:
        RuntimeError: the build fails; the message is TensorRT-RTX's own.
    """
    logger.lines.clear()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph) or not network.num_outputs:
        raise RuntimeError(
            parser.get_error(0).desc()
            if parser.num_errors
            else "the parser found no output in the graph and gave no message"
        )
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if target != "default":
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(getattr(trt.ComputeCapability, target), 0):
            raise RuntimeError(f"{target}: the builder does not support this target")
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        name = network.get_input(index).name
        profile.set_shape(name, *shapes.get(name, shapes["*"]))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError((logger.lines or ["the builder returned no plan and gave no message"])[0])
    return bytes(plan)


def validity(trt: Any, logger: Any, plan: bytes) -> str:
    """Return, as text, whether the runtime calls a plan valid before loading it, and its reasons if not."""
    verdict, bits = trt.Runtime(logger).get_engine_validity(plan)
    reasons = ", ".join(text for bit, text in INVALID.items() if int(bits) & bit)
    return f"{verdict.name} ({reasons})" if reasons else str(verdict.name)


class Loaded:
    """A plan that is loaded on the GPU. Its tensors are PyTorch's, and it has a stream of its own."""

    def __init__(self, trt: Any, logger: Any, plan: bytes) -> None:
        """Load a plan.

        Raises:
            RuntimeError: the plan cannot be loaded; the message is TensorRT-RTX's own.
        """
        import torch

        self.trt, self.torch, logger.lines[:] = trt, torch, []
        self.runtime = trt.Runtime(logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise RuntimeError((logger.lines or ["the plan cannot be loaded, and TensorRT-RTX gave no message"])[0])
        self.context = self.engine.create_execution_context()
        self.stream = torch.cuda.Stream()
        self.tensors: dict[str, Any] = {}

    def __call__(self, batch: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Run a batch, and return the plan's last output as float32."""
        torch, output = self.torch, ""
        for index in range(self.engine.num_io_tensors):
            name = self.engine.get_tensor_name(index)
            if self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT:
                self.tensors[name] = torch.from_numpy(np.ascontiguousarray(batch[name])).cuda()
                if not self.context.set_input_shape(name, tuple(batch[name].shape)):
                    raise RuntimeError(f"{name}: the plan does not accept the shape {batch[name].shape}")
            else:
                shape = tuple(self.context.get_tensor_shape(name))
                kind = {"HALF": torch.float16, "FLOAT": torch.float32}[self.engine.get_tensor_dtype(name).name]
                self.tensors[name] = torch.full(shape, float("nan"), dtype=kind, device="cuda")
                output = name
            self.context.set_tensor_address(name, self.tensors[name].data_ptr())
        torch.cuda.synchronize()
        if not self.context.execute_async_v3(self.stream.cuda_stream):
            raise RuntimeError("execute_async_v3 failed")
        self.stream.synchronize()
        found: NDArray[np.float32] = self.tensors[output].float().cpu().numpy()
        return found

    def milliseconds(self, calls: int = 50) -> float:
        """Repeat the last call `calls` times; return the median of its GPU time in ms, measured with CUDA events."""
        torch, found = self.torch, []
        with torch.cuda.stream(self.stream):
            for _ in range(calls):
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record(self.stream)
                self.context.execute_async_v3(self.stream.cuda_stream)
                end.record(self.stream)
                end.synchronize()
                found.append(begin.elapsed_time(end))
        return statistics.median(found)


def compare(found: NDArray[np.float32], expected: Any, key: str) -> str:
    """Return a comparison of logits with ONNX Runtime's, as text.

    It has the largest absolute difference from ONNX Runtime on the same graph and on the FP32 graph, and the number of
    rows whose label differs from FP32's. `key` names the graph in `expected`: `fp16` or `int8`.
    """
    if not np.isfinite(found).all():
        return f"NaN or infinite LOGITS in {int((~np.isfinite(found)).any(1).sum())} of {len(found)} rows"
    own, fp32 = np.abs(found - expected[key]).max(), np.abs(found - expected["fp32"]).max()
    changed = int((found.argmax(1) != expected["fp32"].argmax(1)).sum())
    return f"largest |d| to ORT on this graph {own:.2e}, to FP32 {fp32:.2e}; {changed} of {len(found)} labels changed"


def gemm(way: str, k: int = 256, n: int = 64) -> tuple[bytes, NDArray[np.int64], NDArray[np.float64]]:
    """Return an ONNX graph with one INT8 GEMM and a bias, its integer weights [k, n], and its weight scales [n].

    `way` says how the weight is scaled: `channel` (one scale per column), `tensor` (one scale), or `rescaled` (one
    scale, and a Mul after the GEMM that multiplies each column by a factor of its own).
    """
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    w = np.clip(np.arange(1, n + 1)[None, :] * 2 - generator.integers(0, 2, (k, n)), 1, 127).astype(np.int8)
    s = (2.0**-14 * (1 + np.arange(n) / n)).astype(np.float16)
    if way == "tensor":
        s = np.full(n, 2.0**-14, np.float16)
    by_channel = way == "channel"
    arrays = {
        "s_x": np.float16(2.0**-4),
        "z": np.int8(0),
        "w": w,
        "b": np.zeros(n, np.float16),
        "s_w": s if by_channel else np.float16(2.0**-14),
        "zw": np.zeros(n, np.int8) if by_channel else np.int8(0),
        "v": (s / np.float16(2.0**-14)).astype(np.float16),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s_x", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s_x", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s_w", "zw"], ["wd"], **({"axis": 1} if by_channel else {})),
        helper.make_node("MatMul", ["xd", "wd"], ["p"]),
    ]
    if way == "rescaled":
        nodes.append(helper.make_node("Mul", ["p", "v"], ["pv"]))
    nodes.append(helper.make_node("Add", ["pv" if way == "rescaled" else "p", "b"], ["y"]))
    used = {name for node in nodes for name in node.input}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items() if name in used]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["m", k])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["m", n])]
    graph = helper.make_graph(nodes, way, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model.SerializeToString(), w.astype(np.int64), s.astype(np.float64)


def judge(y: NDArray[np.float64], sums: NDArray[np.int64], scale: NDArray[np.float64]) -> str:
    """Return, as text, how many of the sums above the largest float16 number are right, infinite, or saturated.

    `y` has the outputs of the GEMM, `sums` its exact INT32 sums, and `scale` the factor from a sum to an output.
    """
    right, over = sums * scale, np.abs(sums) > HALF_MAX
    with np.errstate(all="ignore"):
        error = np.abs(y - right) / np.abs(right)
        clipped = np.abs(np.abs(y) - HALF_MAX * scale) / (HALF_MAX * scale) < 0.02
    bad, good = ~np.isfinite(y), error < 0.02
    return (
        f"{int(over.sum())} of {over.size} sums above 65,504 (largest {sums.max():,}): right {int(good[over].sum())}, "
        f"inf or NaN {int(bad[over].sum())}, saturated {int((clipped & ~good)[over].sum())}; "
        f"relative error of the other sums at most {np.nanmax(np.where(bad, np.inf, error)[~over]):.1e}"
    )


class Steps:
    """The steps of this stage. Each method runs one step, and returns the text of its line in the table."""

    def __init__(self, stage: Stage, *, dry: bool) -> None:
        self.stage, self.dry = stage, dry
        self.trt: Any = None
        self.logger: Any = None
        self.chosen: str | None = None  # the first target whose plan ran

    def load(self) -> str:
        """Import TensorRT-RTX, and return its version."""
        self.trt = import_rtx()
        self.logger = make_logger(self.trt)
        return str(self.trt.__version__)

    def _plan(self, name: str, precision: str, target: str) -> bytes:
        graph = (KIT / name / f"model.{precision}.onnx").read_bytes()
        return build(self.trt, self.logger, graph, target, TOKEN_SHAPES)

    def target(self, target: str) -> str:
        """Build a plan of the demo's INT8 graph for a target, and try to run it on this GPU.

        The first target whose plan runs becomes `chosen`.
        """
        start = time.monotonic()
        plan = self._plan("demo", "int8", target)
        seconds, verdict = time.monotonic() - start, validity(self.trt, self.logger, plan)
        text = f"built {len(plan) / 2**20:.1f} MiB in {seconds:.0f} s, validity {verdict}"
        if self.dry:
            return f"{text}, {len(self.logger.kernels)} kernels"
        try:
            expected = np.load(KIT / "demo/reference.npz")
            logits = Loaded(self.trt, self.logger, plan)({key: expected[key] for key in INPUTS})
        except Exception as error:
            return f"{text}; does not run: {str(error)[:200]}"
        self.chosen = self.chosen or target
        return f"{text}; RUNS: {compare(logits, expected, 'int8')}"

    def run(self, name: str, precision: str) -> str:
        """Run a graph of the demo or of sst2 (`name`) in this precision; compare its logits and time it.

        It is timed on 64 rows and on one row, whose logits are compared with those of the same row in the batch.
        """
        assert self.chosen
        plan, kernels = self._plan(name, precision, self.chosen), self.logger.kernels
        self.stage.facts[f"kernels {name} {precision}"] = list(kernels)
        gemms, fused = sum("gemm" in one for one in kernels), sum("mha" in one for one in kernels)
        counted = f"{len(kernels)} kernels, {gemms} of them GEMMs, {fused} fused attention"
        if self.dry:
            return f"{len(plan) / 2**20:.1f} MiB, {counted}"
        engine, expected = Loaded(self.trt, self.logger, plan), np.load(KIT / name / "reference.npz")
        batch, start = {key: expected[key] for key in INPUTS}, time.monotonic()
        logits = engine(batch)
        first_s = time.monotonic() - start
        np.save(OUT / f"rtx-{name}-{precision}.npy", logits)
        text = f"{compare(logits, expected, precision)}; 64 rows of 64 tokens: {engine.milliseconds():.3f} ms"
        text += f", first call {first_s:.2f} s; {counted}"
        alone = engine({key: value[:1] for key, value in batch.items()})
        difference = np.abs(alone - logits[:1]).max()
        return f"{text}; the first row alone differs by {difference:.1e} and takes {engine.milliseconds():.3f} ms"

    def sums(self, way: str) -> str:
        """Run the INT8 GEMM of `gemm`, some of whose sums exceed float16's range, and judge its outputs."""
        assert self.chosen
        graph, w, s = gemm(way)
        plan = build(self.trt, self.logger, graph, self.chosen, SUMS_SHAPES)
        kernels, scale = "; ".join(self.logger.kernels), s * 2.0**-4
        self.stage.facts[f"kernels sums {way}"] = list(self.logger.kernels)
        q = np.random.default_rng(1).integers(1, 128, (64, 1)) * np.ones((1, 256), np.int64)
        q[::7] = np.random.default_rng(2).integers(-127, 128, (len(q[::7]), 256))
        exact = q @ w
        if self.dry:
            overflowed = np.where(np.abs(exact) > HALF_MAX, np.inf, exact) * scale
            return f"{kernels}; an overflow would give: {judge(overflowed, exact, scale)}"
        y = Loaded(self.trt, self.logger, plan)({"x": (q * 2.0**-4).astype(np.float16)})
        np.save(OUT / f"rtx-sums-{way}.npy", y)
        return f"{judge(y.astype(np.float64), exact, scale)}; {kernels}"


def main() -> None:
    """Run all steps of the stage."""
    args = arguments("rtx", 200.0)
    stage = Stage("rtx", args.seconds)
    steps = Steps(stage, dry=args.dry)
    if not args.dry:
        stage.facts["machine"] = machine()
    if stage.call("load", steps.load) is None:
        stage.finish()
        return
    stage.only = args.only  # after `load`, which every step needs
    choose_target(stage, steps)
    if steps.chosen:
        for way in ("channel", "tensor", "rescaled"):
            stage.call(f"sums {way}", lambda way=way: steps.sums(way), least=10)
        for name in ("demo", "sst2"):
            for precision in ("fp16", "int8"):
                stage.call(f"run {name} {precision}", lambda name=name, kind=precision: steps.run(name, kind), least=15)
    stage.facts["log"] = steps.logger.lines[-20:]
    arrays = sorted(OUT.glob("rtx-*.npy"))
    stage.finish(*arrays)
    for one in arrays:
        one.unlink()


def choose_target(stage: Stage, steps: Steps) -> None:
    """Run the steps `target`, and choose the first target whose plan ran on this GPU.

    With --dry, or if --only excludes these steps, `default` is chosen.
    """
    for name in TARGETS:
        if name not in OTHER_TARGETS or not steps.chosen:
            stage.call(f"target {name}", lambda name=name: steps.target(name), least=15)
    tried = any(one["step"].startswith("target") for one in stage.rows)
    if steps.dry or not tried:
        stage.row("verdict", "ok", "not tested", 0.0)
        steps.chosen = "default"
    elif steps.chosen:
        stage.row("verdict", "ok", f"this GPU runs plans that were built for {steps.chosen}", 0.0)
    else:
        stage.row("verdict", "NO", "this GPU runs plans of none of the targets", 0.0)
    stage.facts["target"] = steps.chosen


if __name__ == "__main__":
    main()
