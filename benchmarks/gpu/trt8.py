"""Run one step of stage `trt8`: `python3.11 trt8.py STEP KIT OUT REPO`.

It runs in the Python 3.11 of the kit, with TensorRT 8.5.3, and prints the text for the table. KIT is the folder of the
unpacked files, OUT that of the results, and REPO the root of this project. Every step is a process of its own, because
TensorRT may crash on a GPU that is newer than it. The script calls only functions that both the bindings of 8.6 and the
library of 8.5.3 have, so it sets neither the optimisation level nor version compatibility.
"""

import ctypes
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEP, KIT, OUT, REPO = sys.argv[1], *map(Path, sys.argv[2:5])
# Values of nvinfer1::DataType.
FP32, FP16, INT8 = 0, 1, 2
# The largest float16 number.
HALF_MAX = 65504

Array = NDArray[Any]
Fill = Callable[[Any, Any], object]


class Cuda:
    """The CUDA driver, through ctypes: its primary context, and one stream."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self("cuCtxSetCurrent", context)
        self.stream = ctypes.c_void_p()
        self("cuStreamCreate", ctypes.byref(self.stream), 1)

    def __call__(self, name: str, *arguments: object) -> None:
        """Call a function of the driver.

        Raises:
            RuntimeError: the function fails; the message has its CUresult.
        """
        status = getattr(self.lib, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with CUresult {status}")

    def memory(self, array: Array) -> int:
        """Allocate device memory, copy the array into it, and return its address."""
        place = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(max(array.nbytes, 16)))
        self.upload(place.value, array)
        return place.value

    def upload(self, place: int, array: Array) -> None:
        """Copy an array to the device address `place`, and wait until the copy is complete.

        The wait is needed because our stream is non-blocking: it does not wait for copies in the default stream.
        """
        source = array.ctypes.data_as(ctypes.c_void_p)
        self("cuMemcpyHtoD_v2", ctypes.c_uint64(place), source, ctypes.c_size_t(array.nbytes))
        self("cuCtxSynchronize")

    def fetch(self, array: Array, place: int) -> Array:
        """Copy device memory at the address `place` into `array`, and return the array."""
        target = array.ctypes.data_as(ctypes.c_void_p)
        self("cuMemcpyDtoH_v2", target, ctypes.c_uint64(place), ctypes.c_size_t(array.nbytes))
        return array

    def wait(self) -> None:
        """Wait until the work in the stream is done."""
        self("cuStreamSynchronize", self.stream)


def import_trt() -> tuple[Any, Any]:
    """Return TensorRT's bindings, and a logger that keeps errors and warnings in `lines`.

    The bindings get the names of newer releases that the project's code uses.
    """
    import tensorrt_bindings as trt

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR, trt.ILogger.WARNING):
                self.lines.append(f"{severity.name}: {' '.join(message.split())[:300]}")

    class Registry:
        def __init__(self, real: Any) -> None:
            self.real = real

        def get_creator(self, kind: str, version: str, namespace: str) -> Any:
            return self.real.get_plugin_creator(kind, version, namespace)

    real = trt.get_plugin_registry()
    trt.get_plugin_registry = lambda: Registry(real)
    trt.IPluginCreatorV3One = trt.TensorRTPhase = type("Absent", (), {})
    return trt, Logger()


def make_builder(trt: Any, logger: Any) -> Any:
    """Return a builder.

    Raises:
        RuntimeError: TensorRT cannot make one; the message is its own.
    """
    try:
        return trt.Builder(logger)
    except TypeError as error:  # the bindings raise it for a null pointer
        raise RuntimeError("TensorRT cannot make a builder: " + "; ".join(logger.lines[-3:])) from error


def build(
    trt: Any, logger: Any, fill: Fill, flags: tuple[str, ...], calibrator: Any = None, shapes: Any = None
) -> tuple[bytes, float]:
    """Build the network that `fill(builder, network)` makes; return the plan and the build time in seconds.

    `flags` are names of BuilderFlag; without any, TF32 is switched off. `shapes` maps an input to its smallest, optimal
    and largest shape.

    Raises:
        RuntimeError: the build fails; the message is TensorRT's own.
    """
    builder = make_builder(trt, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    owned = fill(builder, network)  # it must outlive the build
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 2 << 30)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    sources = trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS
    config.set_tactic_sources(sum(1 << int(one) for one in sources))
    if not flags:
        config.clear_flag(trt.BuilderFlag.TF32)
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if calibrator is not None:
        config.int8_calibrator = calibrator
    if shapes:
        profile = builder.create_optimization_profile()
        for name, limits in shapes.items():
            profile.set_shape(name, *limits)
        config.add_optimization_profile(profile)
    start = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    del owned
    if plan is None:
        raise RuntimeError("; ".join(logger.lines[-3:]) or "the builder returned no plan and gave no message")
    return bytes(plan), time.monotonic() - start


def parsed(trt: Any, logger: Any, data: bytes) -> Fill:
    """Return a function that fills a network from the bytes of an ONNX model."""

    def fill(builder: Any, network: Any) -> object:
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(data):
            errors = [str(parser.get_error(index)) for index in range(min(2, parser.num_errors))]
            raise RuntimeError("the parser does not accept the graph: " + "; ".join(errors))
        return parser

    return fill


def run(trt: Any, logger: Any, cuda: Cuda, plan: bytes, batch: dict[str, Array], name: str) -> tuple[Array, str]:
    """Load and run a plan; return its last output as float32, and a text about its layers and its median time.

    `name` names the file of layers that is written to OUT.
    """
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RuntimeError("the plan cannot be loaded: " + "; ".join(logger.lines[-3:]))
    layers = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    (OUT / f"trt8-{name}-layers.json").write_text(layers)
    context = engine.create_execution_context()
    result, output = np.empty(0), 0
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(tensor) == trt.TensorIOMode.INPUT
        if is_input:
            array = np.ascontiguousarray(batch[tensor])
            context.set_input_shape(tensor, array.shape)
        else:
            kind = np.float16 if engine.get_tensor_dtype(tensor) == trt.float16 else np.float32
            array = np.full(tuple(context.get_tensor_shape(tensor)), np.nan, kind)
        place = cuda.memory(array)
        context.set_tensor_address(tensor, place)
        if not is_input:
            result, output = array, place
    if not context.execute_async_v3(cuda.stream.value):
        raise RuntimeError("execute_async_v3 failed: " + "; ".join(logger.lines[-3:]))
    cuda.wait()
    found, times = cuda.fetch(result, output).astype(np.float32), []
    for _ in range(30):
        start = time.perf_counter()
        context.execute_async_v3(cuda.stream.value)
        cuda.wait()
        times.append(1000 * (time.perf_counter() - start))
    fused, int8 = sum(layers.count(word) for word in ("fMHA", "_mha", "QKVToContext")), layers.count("Int8")
    counted = f"{engine.num_layers} layers, which mention Int8 {int8} times and attention kernels {fused} times"
    return found, f"{counted}, {statistics.median(times):.3f} ms"


def difference(found: Array, expected: Array, fp32: Array) -> str:
    """Return the largest absolute differences from the expected logits and from those of FP32, as text."""
    if not np.isfinite(found).all():
        return f"NaN or infinite LOGITS: {int((~np.isfinite(found)).sum())} of {found.size}"
    own, other = np.abs(found - expected).max(), np.abs(found - fp32).max()
    return f"largest |d| {own:.1e} (to FP32 {other:.1e}; largest |logit| {np.abs(fp32).max():.2f})"


def encoder() -> Any:
    """Return the model in the kit as the project's `Encoder`, which the packed graphs are made from."""
    from toolchain import graph
    from toolchain.graph.encoder import parse_encoder

    return parse_encoder(graph.load(KIT / "graphs/model.onnx"))


def plugin_graph(integer: bool) -> bytes:
    """Return the project's packed graph (without padding) for TensorRT 8.5, as the bytes of an ONNX model.

    It uses the plugins of 8.5 and an opset that the parser of 8.5 supports. With `integer`, the attention is in INT8.
    """
    from toolchain import graph
    from toolchain.graph.plugin_graph import QKV, SKIP_NORM, packed_graph

    attention, versions = INT8 if integer else FP16, {QKV: "2", SKIP_NORM: "2"}
    model = packed_graph(encoder(), dtype="float32", attention_type=attention, norm_type=FP16, versions=versions)
    model.opset_imports[""] = 17
    model.ir_version = 8
    return bytes(graph.serialised(model))


class Steps:
    """The steps that need TensorRT. Each method runs one, and prints the text for the table."""

    def __init__(self, trt: Any, logger: Any) -> None:
        self.trt, self.logger = trt, logger
        self.cuda, self.expected = Cuda(), np.load(KIT / "graphs/reference.npz")
        self.batch = {name: self.expected[name] for name in ("input_ids", "attention_mask")}

    def graph(self, step: str) -> None:
        """Build and run a padded graph in FP32 (`fp32`), FP16 (`fp16`) or INT8 with Q/DQ nodes (`qdq`)."""
        data = (KIT / "graphs" / ("qdq.onnx" if step == "qdq" else "fp32.onnx")).read_bytes()
        flags: dict[str, tuple[str, ...]] = {"fp32": (), "fp16": ("FP16",), "qdq": ("FP16", "INT8")}
        shapes = {name: ((1, 16), (8, 128), (8, 128)) for name in self.batch}
        fill = parsed(self.trt, self.logger, data)
        plan, seconds = build(self.trt, self.logger, fill, flags[step], shapes=shapes)
        found, text = run(self.trt, self.logger, self.cuda, plan, self.batch, step)
        off = difference(found, self.expected["qdq" if step == "qdq" else "fp32"], self.expected["fp32"])
        print(f"built in {seconds:.0f} s, {len(plan) / 2**20:.1f} MiB; {off}; {text}")

    def sums(self, step: str) -> None:
        """Run one INT8 GEMM with sums above 65,504, the largest float16 number.

        The builder may use FP16 kernels in step `sums`, but not in `sums32`.
        """
        flags = ("INT8",) if step == "sums32" else ("FP16", "INT8")
        fill = parsed(self.trt, self.logger, (KIT / "graphs/sums.onnx").read_bytes())
        plan, _ = build(self.trt, self.logger, fill, flags)
        found, text = run(self.trt, self.logger, self.cuda, plan, {"x": self.expected["x"]}, step)
        exact, over = self.expected["exact"], np.abs(self.expected["sums"]) > HALF_MAX
        with np.errstate(all="ignore"):
            good = np.abs(found / exact - 1) < 0.02
        bad = int((~np.isfinite(found))[over].sum())
        print(
            f"{int(over.sum())} of {over.size} sums above 65,504: right {int(good[over].sum())}, inf or NaN {bad}; "
            f"of the {int((~over).sum())} other sums right {int(good[~over].sum())}; {text}"
        )

    def calibrate(self) -> None:
        """Run TensorRT's entropy calibrator on the project's calibration network; write its cache for `plugin8`."""
        read = encoder()
        from toolchain.engine.calibrator import entropy_calibrator
        from toolchain.engine.plugins import FIXED_LENGTH, plugin_versions
        from toolchain.engine.static import static_network

        generator, batches = np.random.default_rng(3), []
        for _ in range(4):
            ids = generator.integers(5, 1000, (128, 8)).astype(np.int32)
            batches.append({"input_ids": ids, "lengths": generator.integers(16, 129, (8, 1)).astype(np.int32)})
        places = {name: self.cuda.memory(array) for name, array in batches[0].items()}

        def upload(name: str, array: Array) -> int:
            self.cuda.upload(places[name], array)
            return places[name]

        def fill(builder: Any, network: Any) -> object:
            versions = plugin_versions(self.trt, FIXED_LENGTH)
            return static_network(self.trt, network, read, batch=8, length=128, versions=versions)

        shapes = {name: array.shape for name, array in batches[0].items()}
        calibrator = entropy_calibrator(self.trt, batches, cache=None, upload=upload, shapes=shapes)
        _, seconds = build(self.trt, self.logger, fill, ("INT8",), calibrator)
        if calibrator.error:
            raise calibrator.error
        (KIT / "calibration.cache").write_bytes(calibrator.cache_written)
        (OUT / "trt8-calibration.cache").write_bytes(calibrator.cache_written)
        lines, last = calibrator.cache_written.decode().splitlines(), "; ".join(self.logger.lines[-1:])
        read_batches = f"{calibrator.batches_seen} of 4 batches"
        print(f"{read_batches} read, cache {lines[0]}, {len(lines) - 1} scales, {seconds:.0f} s; last log line: {last}")

    def plugin(self, step: str) -> None:
        """Build and run the packed graph with the attention plugin, in FP16 (`plugin16`) or in INT8 (`plugin8`)."""
        integer, cache = step == "plugin8", None
        data = plugin_graph(integer)
        from toolchain.graph.plugin_graph import pack_batch

        rows = pack_batch(self.batch)
        if integer:
            from toolchain.engine.calibrator import entropy_calibrator

            cache = entropy_calibrator(self.trt, (), cache=(KIT / "calibration.cache").read_bytes())
        shapes = {}
        for name, array in rows.items():
            least = tuple(1 if name != "cu_seqlens" else 2 for _ in array.shape)
            shapes[name] = (least, array.shape, array.shape)
        flags = ("FP16", "INT8") if integer else ("FP16",)
        plan, seconds = build(self.trt, self.logger, parsed(self.trt, self.logger, data), flags, cache, shapes)
        found, text = run(self.trt, self.logger, self.cuda, plan, rows, step)
        missing = sum("Missing scale" in line for line in self.logger.lines)
        off = difference(found, self.expected["fp32"], self.expected["fp32"])
        print(f"built in {seconds:.0f} s; {off}; {missing} warnings of a missing scale; {text}")


def load(trt: Any, logger: Any) -> None:
    """Print the versions of the bindings and of the BERT plugins, and whether the GPU has fast FP16 and INT8."""
    creators = [one for one in trt.get_plugin_registry().real.plugin_creator_list]
    names = {f"{one.name} {one.plugin_version}" for one in creators if one.name.startswith(("CustomQKV", "CustomSkip"))}
    print(f"bindings {trt.__version__}; {', '.join(sorted(names))}; ", end="")
    builder = make_builder(trt, logger)
    fast = f"fast FP16 {builder.platform_has_fast_fp16}, fast INT8 {builder.platform_has_fast_int8}"
    print(f"{fast}; {'; '.join(logger.lines[-2:])}")


def main() -> None:
    """Run the step STEP."""
    sys.path.insert(0, str(REPO))
    if STEP == "graph":  # without TensorRT, so that the project's part can be tested anywhere
        print(f"packed graphs: {len(plugin_graph(False))} bytes in FP16, {len(plugin_graph(True))} bytes in INT8")
        return
    trt, logger = import_trt()
    trt.init_libnvinfer_plugins(logger, "")
    if STEP == "load":
        load(trt, logger)
        return
    steps = Steps(trt, logger)
    if STEP in ("fp32", "fp16", "qdq"):
        steps.graph(STEP)
    elif STEP.startswith("sums"):
        steps.sums(STEP)
    elif STEP == "calibrate":
        steps.calibrate()
    elif STEP.startswith("plugin"):
        steps.plugin(STEP)
    else:
        raise SystemExit(f"unknown step {STEP}. See STEPS in stage_trt8.py.")
    (OUT / f"trt8-{STEP}-log.txt").write_text("\n".join(logger.lines))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # the table shows the last line
        traceback.print_exc()
        raise SystemExit(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from None
