"""OpenVINO on the CPU.

It runs the graphs for CPUs without changes: MatMulIntegerToFloat becomes an integer layer of OpenVINO, and attention in
float32 becomes its fused kernel. Batch size and length are dynamic, so a new shape compiles only kernels, not the whole
model. A compiled model is kept in the user's cache under the digest of its graph; loading it from there takes less than
half the time.
"""

import hashlib
import logging
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain import graph
from toolchain.base.files import sha256_json
from toolchain.base.processors import cpu_threads
from toolchain.base.tensors import Batch, Infer
from toolchain.errors import InputError, MachineError, first_line
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.environment import cpu_flags, cpu_name, saturates
from toolchain.runtimes.openvino_kernels import integer_gemms, quantized_gemms
from toolchain.runtimes.ort import IN_MEMORY
from toolchain.runtimes.user_cache import cache_folder, read_cached, write_cached

log = logging.getLogger(__name__)

# Lock for the first access to a tensor's data (see import_openvino).
_PREPARING = threading.Lock()

# With this property, OpenVINO does not convert Q/DQ nodes and their GEMMs to INT8, but runs them as float operators.
FLOAT_QDQ = {"LP_TRANSFORMS_MODE": "NO"}


def import_openvino() -> Any:
    """Import and return the openvino module, after a workaround for a deadlock between threads.

    The first access to a tensor's data initialises a static variable in OpenVINO's C++ binding, and releases the GIL
    meanwhile. A second thread that gets there would wait for the variable while it holds the GIL: a deadlock. So the
    first access happens here, under a lock.

    Raises:
        MachineError: OpenVINO is not installed, or cannot be loaded.
    """
    try:
        import openvino
    except ImportError as error:
        raise MachineError(
            "--backend openvino: OpenVINO is not installed. Install it with: pip install 'encoder-toolchain[openvino]'."
        ) from error
    with _PREPARING:
        _ = openvino.Tensor(np.zeros(1, np.int32)).data
    return openvino


@contextmanager
def open_openvino(
    model: Path | bytes,
    *,
    device: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    callers: int = 1,
    spin: bool = True,
    digests: Mapping[str, str] | None = None,
) -> Iterator[Infer]:
    """Yield `infer`, a function that runs an ONNX graph on a batch. Several threads may call it at once.

    `model` is the path of a graph, or its bytes. Up to `callers` calls run at the same time, each on `threads`
    processors (None: all that the process may use); further calls wait. With `digests` (file name -> SHA-256), only
    these files are read, and a file with another digest is refused. `precision` and `spin` have no effect: the graph
    decides what is computed in INT8, all else is in float32, and no thread stays busy between runs.

    Raises:
        InputError: the graph cannot be loaded, or (from `infer`) it cannot run a batch.
        MachineError: OpenVINO is not installed, or `device` is not the CPU.
    """
    choose_device(device, cuda=False)
    held = [compile_graph(model, threads=threads, callers=callers, digests=digests)]
    free: list[Any] = []  # inference requests that no call is using; each has its own buffers

    def infer(batch: Batch) -> NDArray[np.float32]:
        compiled = held[0]
        try:
            request = free.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            return run_request(request, model, batch)
        finally:
            free.append(request)

    try:
        yield infer
    finally:
        held.clear()
        free.clear()


def run_request(request: Any, model: Path | bytes, batch: Batch) -> NDArray[np.float32]:
    """Run a batch with an inference request of a compiled model; return the logits, float32 [batch, classes].

    Raises:
        InputError: OpenVINO cannot run the batch, or the inputs differ in shape, which it would not report itself.
    """
    names = {name for port in request.model_inputs for name in port.names}
    try:
        if len(shapes := {array.shape for array in batch.values()}) > 1:
            raise ValueError(f"its inputs have the shapes {sorted(shapes)}")
        found = request.infer({name: array for name, array in batch.items() if name in names})
        return np.array(found["logits"], np.float32)  # copied, because the request reuses its memory
    except Exception as error:  # OpenVINO's CPU plugin raises RuntimeError, its Python binding other classes
        raise InputError(
            f"{_name(model)}: OpenVINO cannot run it on this batch: {_reason(error)}. Check that its token ids "
            "and its length are within the model's limits."
        ) from error


def compile_graph(
    model: Path | bytes,
    *,
    threads: int | None = None,
    callers: int = 1,
    digests: Mapping[str, str] | None = None,
    profile: bool = False,
    **more: Any,
) -> Any:
    """Return the model that OpenVINO compiled from a graph for this CPU. For the arguments, see `open_openvino`.

    With `profile`, its requests time each kernel. `more` are further properties of OpenVINO. If quantized GEMMs of the
    graph run in float32, a warning says so.

    Raises:
        InputError: the graph cannot be loaded.
        MachineError: OpenVINO is not installed.
    """
    in_float = saturates(cpu_flags())
    # Without the precision hint, OpenVINO computes in BF16 on processors that support it, which is not the requested
    # precision. Threads are not pinned to processors, because other processes may use the same ones.
    fixed = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False, **(FLOAT_QDQ if in_float else {}), **more}
    spread = {"NUM_STREAMS": callers, "INFERENCE_NUM_THREADS": (threads or cpu_threads()) * callers}
    spread["PERF_COUNT"] = profile
    source = _source(model, digests)
    if in_float and graph.is_half_qdq(source):
        source = _in_float32(source)  # with FLOAT_QDQ, OpenVINO does not accept float16 between Q/DQ nodes
    compiled = _load(source, _name(model), fixed, spread, cached=isinstance(model, Path))
    _say_what_is_in_float(source, compiled, _name(model), in_float=in_float)
    return compiled


def _source(model: Path | bytes, digests: Mapping[str, str] | None) -> bytes | Path:
    """Return the bytes of a graph. If its weights are in a separate file and `digests` is None, return its path.

    Raises:
        InputError: a file is missing or differs from its digest.
    """
    if isinstance(model, bytes):
        return model
    if digests is not None:
        return graph.read_listed(model, digests)
    return model if len(graph.files_of(model)) > 1 else model.read_bytes()


def _in_float32(source: bytes | Path) -> graph.Message:
    """Return the bytes of a graph after its float16 tensors have been made float32."""
    from toolchain.graph.halves import to_float

    model = graph.load(source)
    to_float(model)
    return graph.message(model, most_bytes=graph.MAX_BYTES)


def _load(source: bytes | Path, name: str, fixed: Mapping[str, Any], spread: Mapping[str, int], *, cached: bool) -> Any:
    """Return the compiled model. With `cached`, read it from the user's cache, or compile it and save it there.

    A cached model is valid for one set of the properties `fixed`. The properties `spread` are set when it is loaded.
    """
    ov = import_openvino()
    core, properties = ov.Core(), {**fixed, **spread}
    whole = isinstance(source, bytes) and not getattr(source, "weights", {})
    folder = cache_folder("openvino") if cached and whole else None
    if folder is None or not isinstance(source, bytes):
        return _compiled(core, source, name, properties)
    about = {"graph": hashlib.sha256(source).hexdigest(), "openvino": ov.__version__, "properties": fixed}
    file = folder / f"{sha256_json({**about, 'cpu': [cpu_name(), *sorted(cpu_flags())]})}.blob"
    if (data := read_cached(file)) is not None:
        try:
            return core.import_model(data, "CPU", properties)
        except RuntimeError as error:
            log.info("%s: OpenVINO cannot read this cached model (%s) and compiles it again", file, first_line(error))
    compiled = _compiled(core, source, name, properties)
    write_cached(file, compiled.export_model().getvalue())
    return compiled


def _compiled(core: Any, source: bytes | Path, name: str, properties: Mapping[str, Any]) -> Any:
    """Compile a graph, given as bytes or a path, and return the compiled model. Messages call the graph `name`.

    Raises:
        InputError: OpenVINO cannot load the graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        given: Any = source if isinstance(source, bytes) else str(source)
        if getattr(source, "weights", {}):  # OpenVINO reads external weights only from a file
            given = str(Path(folder) / "model.onnx")
            graph.save(graph.load(source), Path(given))
        try:
            return core.compile_model(core.read_model(given), "CPU", dict(properties))
        except RuntimeError as error:
            raise InputError(
                f"{name}: OpenVINO cannot load it: {_reason(error)}. Build it again, or choose --backend ort."
            ) from error


def _say_what_is_in_float(source: bytes | Path, compiled: Any, name: str, *, in_float: bool) -> None:
    """Log a warning if OpenVINO computes GEMMs in float32 that the graph has in INT8 or FP8."""
    model = graph.load(source)
    wanted = len(quantized_gemms(model))
    left = wanted - integer_gemms(compiled, model)
    # Graphs in memory are the candidates that `auto` and `tune` compare. Their speed does not matter: no warning.
    level = logging.DEBUG if name == IN_MEMORY else logging.WARNING
    if wanted and in_float:
        why = "its INT8 kernels are not exact on this CPU, which has neither VNNI nor AMX"
        log.log(level, "%s: OpenVINO runs it in float32, because %s. Use --backend ort for INT8.", name, why)
    elif left > 0:
        log.log(level, "%s: OpenVINO runs %d of its %d quantized GEMMs in float32.", name, left, wanted)


def _name(model: Path | bytes) -> str:
    return IN_MEMORY if isinstance(model, bytes) else str(model)


def _reason(error: Exception) -> str:
    """Return the last line of an error's message. The lines before it are locations in OpenVINO's source code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
