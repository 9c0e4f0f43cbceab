"""ONNX Runtime on the CPU or on CUDA.

On CUDA, a fallback to the CPU is an error, whether it concerns the whole session or a single node of
COMPUTE_OPERATORS. ONNX Runtime's own option `session.disable_cpu_ep_fallback` is too strict: ONNX Runtime always places
nodes that compute shapes on the CPU, so the option would refuse every graph with a dynamic length.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain import graph
from toolchain.base.processors import cpu_threads
from toolchain.base.tensors import Batch, Infer
from toolchain.errors import InputError, MachineError, UsageError, first_line
from toolchain.runtimes.device import choose_device, has_cuda_gpu
from toolchain.runtimes.environment import cpu_flags, saturates
from toolchain.runtimes.io_binding import BoundSession

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

# Severity level at which onnxruntime's logger writes nothing to the terminal but fatal errors. Errors are raised as
# exceptions.
FATAL = 4

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

# Session config entry with which ONNX Runtime converts int8 weights to uint8, because its uint8 x uint8 kernel is exact
# on every x86 processor. On processors with VNNI, its uint8 x int8 kernel is also exact and takes half the time, so the
# entry is not set there.
EXACT_SUMS = "session.x64quantprecision"

# Session config entry: the name of a separate file to which the weights of an optimised graph are written.
OPTIMISED_WEIGHTS = "session.optimized_model_external_initializers_file_name"

# Session config entry: the folder in which ONNX Runtime looks for external weights of a graph in memory; by default the
# current folder. With the value NO_FOLDER, it reads no file that a graph names.
WEIGHTS_FOLDER, NO_FOLDER = "session.model_external_initializers_file_folder_path", "/dev/null"

# The name in messages of a graph that is given as bytes.
IN_MEMORY = "graph"

# Session config entry with which ONNX Runtime runs Q/DQ nodes as float operators and does not fuse them into integer
# kernels.
FLOAT_QDQ = "session.disable_quant_qdq"

# Operators that take nearly all the time of an encoder. Its other operators move numbers or compute shapes.
COMPUTE_OPERATORS = {
    "MatMul",
    "FusedMatMul",
    "Gemm",
    "FusedGemm",
    "MatMulInteger",
    "Attention",
    "MultiHeadAttention",
    "LayerNormalization",
    "SkipLayerNormalization",
    "Softmax",
    "Erf",
    "Gelu",
    "BiasGelu",
    "FastGelu",
    "Tanh",
    "QuantizeLinear",
    "DequantizeLinear",
}


def import_onnxruntime() -> Any:
    """Import and return the onnxruntime module, with its own log switched off.

    Raises:
        MachineError: neither its CPU package nor its GPU package is installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MachineError(
            "ONNX Runtime is not installed. Install it with: pip install 'encoder-toolchain[cpu]' "
            "(or [cuda] on a machine with an NVIDIA GPU)."
        ) from error
    onnxruntime.set_default_logger_severity(FATAL)
    return onnxruntime


def has_gpu() -> bool:
    """Return whether ONNX Runtime can use a GPU here: it has the CUDA provider, and the machine has a GPU.

    The provider alone proves nothing, because the CUDA package lists it on machines without a GPU too.
    """
    return CUDA in import_onnxruntime().get_available_providers() and has_cuda_gpu()


def open_session(
    model: Path | bytes,
    *,
    device: str = "cpu",
    optimised: Path | None = None,
    profile: Path | None = None,
    threads: int | None = None,
    spin: bool = True,
    cuda_graphs: bool = False,
    halves: bool = False,
    digests: Mapping[str, str] | None = None,
    literal: bool = False,
) -> "onnxruntime.InferenceSession":
    """Return an ONNX Runtime session for a graph. It is checked that the session really runs on `device`.

    Args:
        model: the path of a graph, or its bytes.
        device: `auto`, `cpu` or `cuda[:N]`.
        optimised: a file to write the optimised graph to, if given.
        profile: prefix of the file for ONNX Runtime's profile. If given, the profiler runs until `end_profiling`.
        threads: number of threads; None means one for each processor that the process may use.
        spin: keep the threads busy between runs, which is faster if nothing else needs the processors.
        cuda_graphs: enable CUDA graphs for runs whose options have a `gpu_graph_id` (io_binding.py).
        halves: round float16 tensors to float16 on the CPU, which otherwise computes them in float32 (graph/halves.py).
        digests: file in the model's folder -> SHA-256. If given, other files, or files with other digests, are refused.
        literal: compute the graph as written: Q/DQ nodes and GEMMs are not fused into integer kernels, or moved.

    Raises:
        InputError: the graph cannot be loaded.
        MachineError: ONNX Runtime lacks the provider for `device`, or falls back to another one.
    """
    place, name, in_memory = choose_device(device, cuda=has_gpu()), _name(model), isinstance(model, bytes)
    if digests is not None and isinstance(model, Path):
        model = graph.read_listed(model, digests)
    options = _options(threads, spin=spin, listed_only=digests is not None)
    if optimised:
        _write_optimised(model, options, optimised)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if place == "cpu" and (literal or halves or (not in_memory and _has_half_qdq(model))):
        # The CPU provider lacks float16 INT8 kernels. Its search for them moves Q/DQ nodes and keeps int8 weights.
        options.add_session_config_entry(FLOAT_QDQ, "1")
    provider: Any = CPU
    if place != "cpu":
        provider = (CUDA, cuda_options(place, graphs=cuda_graphs))
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = _load(_in_halves(model) if halves else model, options, provider, name)
    _refuse_fallback(session, device, provider if isinstance(provider, str) else provider[0])
    return session


def _options(threads: int | None, *, spin: bool, listed_only: bool) -> Any:
    """Return the session options that every session has.

    With `listed_only`, ONNX Runtime reads no file that a graph refers to; weights must then be given in memory.
    """
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads or cpu_threads()
    options.log_severity_level = FATAL
    if saturates(cpu_flags()):
        options.add_session_config_entry(EXACT_SUMS, "1")
    if not spin:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if listed_only:
        options.add_session_config_entry(WEIGHTS_FOLDER, NO_FOLDER)
    return options


def _has_half_qdq(model: Path | bytes) -> bool:
    try:
        return graph.is_half_qdq(model)
    except InputError:
        return False  # opening the session raises the error


def _in_halves(model: Path | bytes) -> graph.Message:
    from toolchain.graph.halves import in_halves

    loaded = graph.load(model)
    in_halves(loaded)
    return graph.message(loaded)


def _write_optimised(model: Path | bytes, options: Any, file: Path) -> None:
    """Set the options so that the optimised graph is written to a file.

    Its weights go to a separate file beside it if the model's weights are in a separate file too.
    """
    options.optimized_model_filepath = str(file)
    outside = getattr(model, "weights", {}) if isinstance(model, bytes) else graph.files_of(model)[1:]
    if outside:
        options.add_session_config_entry(OPTIMISED_WEIGHTS, graph.data_file(file).name)


def _load(model: Path | bytes, options: Any, provider: Any, name: str) -> Any:
    """Create a session for a graph. Messages call the graph `name`.

    On a CPU, a graph that does not load with exact INT8 kernels is loaded again with float32 kernels, with a warning.

    Raises:
        InputError: the graph cannot be loaded.
    """
    ort = import_onnxruntime()
    source = model if isinstance(model, bytes) else str(model)
    weights = getattr(model, "weights", {})
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    if values:
        options.add_external_initializers(list(weights), values)
    try:
        return _keeping(ort.InferenceSession(source, options, providers=[provider]), values)
    except Exception as error:  # onnxruntime raises classes of its own, without a common base class
        failed = InputError(f"{name}: ONNX Runtime cannot load it: {first_line(error)}. Build it again.")
        failed.__cause__ = error
    if provider != CPU:
        raise failed
    # ONNX Runtime 1.31 fails if it must convert the weights of Q/DQ nodes to uint8 (EXACT_SUMS). Its float operators do
    # not saturate, so their results are right too.
    options.add_session_config_entry(FLOAT_QDQ, "1")
    try:
        session = _keeping(ort.InferenceSession(source, options, providers=[provider]), values)
    except Exception:  # the fault is in the graph itself, so the first error is raised
        raise failed from failed.__cause__
    # Graphs in memory are the candidates that `auto` and `tune` compare. Their speed does not matter: no warning.
    level = logging.DEBUG if name == IN_MEMORY else logging.WARNING
    log.log(level, "%s: runs in float32, because it does not load with exact INT8 kernels on this CPU.", name)
    return session


def _keeping(session: Any, values: list[Any]) -> Any:
    """Return the session with a reference to `values`, the weights that it reads in place, which must not be freed."""
    session.weights = values
    return session


def _refuse_fallback(session: Any, device: str, provider: str) -> None:
    """Refuse a session that runs, entirely or in part, on another provider than the requested one.

    Raises:
        MachineError: the session does so; the message names the other provider, or the first node that runs on the CPU.
    """
    if session.get_providers()[0] != provider:
        raise MachineError(
            f"--device {device}: ONNX Runtime fell back to {session.get_providers()[0]}. "
            "Install the CUDA libraries that its release notes name, or choose --device cpu."
        )
    if provider == CPU:
        return
    session.disable_fallback()  # otherwise ONNX Runtime repeats a failed run on the CPU
    if left := compute_nodes_on_cpu(session):
        raise MachineError(
            f"--device {device}: ONNX Runtime has no CUDA kernel for {len(left)} nodes that compute, such as "
            f"{left[0]}. Update onnxruntime-gpu, or choose --device cpu."
        )


def cuda_options(place: str, *, graphs: bool = False) -> dict[str, str]:
    """Return the options of the CUDA provider for the device `cuda:N`. With `graphs`, CUDA graphs are enabled.

    TF32 is off, LayerNorms sum in float32, and the memory arena grows by the requested size instead of by powers of
    two.
    """
    return {
        "device_id": place.partition(":")[2],
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
        "enable_cuda_graph": "1" if graphs else "0",
    }


def compute_nodes_on_cpu(session: Any) -> list[str]:
    """Return the type and name of each node of COMPUTE_OPERATORS that ONNX Runtime placed on the CPU.

    The session must have been created with `session.record_ep_graph_assignment_info`. Before onnxruntime 1.24 the
    placement is unknown, and the list is empty.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == CPU]
    nodes = [node for part in parts for node in part.get_nodes()]
    return [f"{node.op_type} {node.name}" for node in nodes if node.op_type in COMPUTE_OPERATORS]


def cannot_run(model: Path | bytes, error: Exception) -> InputError:
    """Return the InputError to raise when a session of `model` fails on a batch with the exception `error`."""
    why = first_line(error).rstrip(".")
    advice = "Check that its token ids and its length are within the model's limits"
    return InputError(f"{_name(model)}: ONNX Runtime cannot run it on this batch: {why}. {advice}.")


def _name(model: Path | bytes) -> str:
    return IN_MEMORY if isinstance(model, bytes) else str(model)


@contextmanager
def open_ort(
    model: Path | bytes,
    *,
    device: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    callers: int = 1,
    spin: bool = True,
    cuda_graphs: bool = False,
    halves: bool = False,
    digests: Mapping[str, str] | None = None,
) -> Iterator[Infer]:
    """Yield `infer`, a function that runs an ONNX graph on a batch.

    `precision` and `callers` have no effect: on a CPU any number of threads may call `infer`. For other arguments, see
    `open_session`. On a GPU, inputs and logits have buffers there, and `cuda_graphs` captures each bucket.

    Raises:
        InputError: the graph cannot be loaded, or (from `infer`) it cannot run a batch.
        MachineError: ONNX Runtime cannot run the graph on this device.
        UsageError: `cuda_graphs` is set for a CPU, or `halves` for a GPU.
    """
    place = choose_device(device, cuda=has_gpu())
    if cuda_graphs and place == "cpu":
        raise UsageError("--cuda-graphs: a CPU has no CUDA graphs. Leave the option out, or choose --device cuda.")
    if halves and place != "cpu":
        raise UsageError(f"--halves: {place} computes float16 itself. Leave --halves out, or choose --device cpu.")
    choices: dict[str, Any] = {"cuda_graphs": cuda_graphs, "threads": threads, "spin": spin, "halves": halves}
    session = open_session(model, device=place, digests=digests, **choices)
    names = {entry.name for entry in session.get_inputs()}
    right_padded = graph.RIGHT_PADDED in session.get_modelmeta().custom_metadata_map
    runs = [_unbound(session) if place == "cpu" else BoundSession(session, place, graphs=cuda_graphs).run]
    del session

    def infer(batch: Batch) -> NDArray[np.float32]:
        run = runs[0]
        if right_padded and (np.diff(batch["attention_mask"], axis=1) > 0).any():
            raise InputError(
                f"{_name(model)}: takes only rows that are padded on the right. Pad on that side, or run model.onnx."
            )
        try:
            return run({name: array for name, array in batch.items() if name in names})
        except Exception as error:
            raise cannot_run(model, error) from error

    try:
        yield infer
    finally:
        runs.clear()  # frees the session even if the caller keeps `infer`


def _unbound(session: Any) -> Infer:
    return lambda batch: np.asarray(session.run(["logits"], batch)[0], np.float32)
