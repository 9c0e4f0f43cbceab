"""ONNX Runtime on the CPU or on CUDA.

On CUDA a fall-back to the CPU is an error, of a whole session as of a node that computes. Nodes of shapes, such as the
Shape behind a position table, are always placed on the CPU by ONNX Runtime itself, so its own option
`session.disable_cpu_ep_fallback` would refuse every graph with a dynamic length.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain import graph
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.graph.cuda import RIGHT_PADDED
from toolchain.runtimes.device import choose_device, cpu_threads
from toolchain.runtimes.io_binding import Bound
from toolchain.tensors import Batch, Infer

if TYPE_CHECKING:
    import onnxruntime

FATAL = 4
"""onnxruntime's log level that keeps its own lines off the terminal; errors come as exceptions."""

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

COMPUTING = {
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
"""Operators whose place is where the time goes; the others of an encoder move numbers or compute shapes."""


def import_onnxruntime() -> Any:
    """Return the onnxruntime module.

    Raises:
        MachineError: neither its CPU nor its GPU package is installed.
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
    """Return whether this ONNX Runtime can use a GPU: whether its package has the CUDA provider."""
    return CUDA in import_onnxruntime().get_available_providers()


def open_session(
    model: Path | bytes,
    *,
    device: str = "cpu",
    optimised: Path | None = None,
    profile: Path | None = None,
    threads: int | None = None,
    spin: bool = True,
    cuda_graphs: bool = False,
) -> "onnxruntime.InferenceSession":
    """Return a session that really runs on `device`; write the optimised graph to `optimised`.

    It runs on `threads` processors, or on all; with `spin` they stay busy between calls too, which is faster where
    nothing else needs them. With `profile`, the beginning of a file's name, ONNX Runtime's profiler is on until
    `end_profiling` is called. With `cuda_graphs`, work is recorded and replayed for runs whose options have a
    `gpu_graph_id` (see bound.py).

    Raises:
        InputError: the graph cannot be loaded.
        MachineError: the provider for `device` is missing or fell back.
    """
    ort = import_onnxruntime()
    place = choose_device(device, cuda=CUDA in ort.get_available_providers())
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cpu_threads()
    if not spin:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = FATAL
    if optimised:
        options.optimized_model_filepath = str(optimised)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if place == "cpu" and is_half_qdq(model):
        # There is no integer kernel around float16; looking for one keeps weights from being dequantised once for all.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    provider: Any = CPU
    if place != "cpu":
        provider = (CUDA, cuda_options(place, graphs=cuda_graphs))
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=[provider])
    except Exception as error:  # onnxruntime raises classes of its own binding, with no common base
        first = str(error).strip().split("\n")[0]
        raise InputError(f"{_name(model)}: ONNX Runtime cannot load it: {first}. Build it again.") from error
    _refuse_fallback(session, device, provider if isinstance(provider, str) else provider[0])
    return session


def _refuse_fallback(session: Any, device: str, provider: str) -> None:
    """Refuse a session that does not run on its provider, as a whole or in part.

    Raises:
        MachineError: naming what does not.
    """
    if session.get_providers()[0] != provider:
        raise MachineError(
            f"--device {device}: ONNX Runtime fell back to {session.get_providers()[0]}. "
            "Install the CUDA libraries that its release notes name, or choose --device cpu."
        )
    if provider == CPU:
        return
    session.disable_fallback()  # or a run that fails is repeated on the CPU
    if left := computing_on_cpu(session):
        raise MachineError(
            f"--device {device}: ONNX Runtime has no CUDA kernel for {len(left)} nodes that compute, {left[0]} "
            "first. Update onnxruntime-gpu, or choose --device cpu."
        )


def cuda_options(place: str, *, graphs: bool = False) -> dict[str, str]:
    """Return the CUDA provider's options for `cuda:N`.

    FP32 is FP32 and no TF32, LayerNorms sum in float32, and the arena takes what is asked for instead of powers of two.
    """
    return {
        "device_id": place.partition(":")[2],
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
        "enable_skip_layer_norm_strict_mode": "1",
        "enable_cuda_graph": "1" if graphs else "0",
    }


def computing_on_cpu(session: Any) -> list[str]:
    """Return type and name of nodes that compute and were placed on the CPU; releases before 1.24 do not tell.

    The session must have been made with `session.record_ep_graph_assignment_info`.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == CPU]
    return [f"{node.op_type} {node.name}" for part in parts for node in part.get_nodes() if node.op_type in COMPUTING]


def is_half_qdq(model: Path | bytes) -> bool:
    """Whether a file is a graph of Q/DQ nodes with float16 between them, made for GPUs (graph/half.py)."""
    if isinstance(model, bytes):
        return False
    try:
        nodes = graph.load(model).graph
    except InputError:
        return False  # the session says what is wrong with it
    return any(node.op_type == "DequantizeLinear" and node.outputs[0].dtype == ir.DataType.FLOAT16 for node in nodes)


def cannot_run(model: Path | bytes, error: Exception) -> InputError:
    """Return the error to raise where a session fails on a batch: onnxruntime's own have no common base."""
    first = str(error).strip().split("\n")[0].rstrip(".")
    advice = "Give ids and lengths that it takes"
    return InputError(f"{_name(model)}: ONNX Runtime cannot run it on this batch: {first}. {advice}.")


def _name(model: Path | bytes) -> str:
    return "graph" if isinstance(model, bytes) else str(model)


@contextmanager
def open_ort(
    model: Path | bytes,
    *,
    device: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    spin: bool = True,
    cuda_graphs: bool = False,
) -> Iterator[Infer]:
    """Yield `infer` of an ONNX graph; `precision` is the graph's own and changes nothing, `threads` and `spin` do.

    On a GPU, inputs and logits have buffers there (bound.py); with `cuda_graphs`, each bucket is recorded once.

    Raises:
        MachineError: it would run elsewhere than asked.
        UsageError: CUDA graphs on a CPU.
    """
    place = choose_device(device, cuda=CUDA in import_onnxruntime().get_available_providers())
    if cuda_graphs and place == "cpu":
        raise UsageError("--cuda-graphs: there are none on a CPU. Leave it out, or choose --device cuda.")
    session = open_session(model, device=place, cuda_graphs=cuda_graphs, threads=threads, spin=spin)
    names = {entry.name for entry in session.get_inputs()}
    right_padded = RIGHT_PADDED in session.get_modelmeta().custom_metadata_map
    runs = [_plainly(session) if place == "cpu" else Bound(session, place, graphs=cuda_graphs).run]
    del session

    def infer(batch: Batch) -> NDArray[np.float32]:
        run = runs[0]
        if right_padded and (np.diff(batch["attention_mask"], axis=1) > 0).any():
            raise InputError(
                f"{_name(model)}: takes rows padded on the right alone. Pad them there, or run model.onnx."
            )
        try:
            return run({name: array for name, array in batch.items() if name in names})
        except Exception as error:
            raise cannot_run(model, error) from error

    try:
        yield infer
    finally:
        runs.clear()  # whoever still holds `infer` holds no session


def _plainly(session: Any) -> Infer:
    return lambda batch: np.asarray(session.run(["logits"], batch)[0], np.float32)
