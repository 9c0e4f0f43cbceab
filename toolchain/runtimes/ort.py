"""ONNX Runtime on the CPU or on CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain import graph
from toolchain.errors import InputError, MachineError
from toolchain.runtimes.device import choose_device, cpu_threads
from toolchain.tensors import Batch, Infer

if TYPE_CHECKING:
    import onnxruntime

FATAL = 4
"""onnxruntime's log level that keeps its own lines off the terminal; errors come as exceptions."""


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


def open_session(
    model: Path | bytes,
    *,
    device: str = "cpu",
    optimised: Path | None = None,
    profile: Path | None = None,
    threads: int | None = None,
    spin: bool = True,
) -> "onnxruntime.InferenceSession":
    """Return a session that really runs on `device`; write the optimised graph to `optimised`.

    It runs on `threads` processors, or on all; with `spin` they stay busy between calls, which is faster where
    nothing else needs them. With `profile`, the beginning of a file's name, ONNX Runtime's profiler is on until
    `end_profiling` is called.

    Raises:
        InputError: the graph cannot be loaded.
        MachineError: the provider for `device` is missing or fell back.
    """
    ort = import_onnxruntime()
    place = choose_device(device, cuda="CUDAExecutionProvider" in ort.get_available_providers())
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or cpu_threads()
    if not spin:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = FATAL
    if optimised:
        options.optimized_model_filepath = str(optimised)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if place == "cpu" and is_half_qdq(model):
        # There is no integer kernel around float16; looking for one keeps weights from being dequantised once for all.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    provider: Any = "CPUExecutionProvider"
    if place != "cpu":
        provider = ("CUDAExecutionProvider", {"device_id": int(place.split(":")[1])})
    try:
        session = ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=[provider])
    except Exception as error:  # onnxruntime raises classes of its own binding, with no common base
        name = "graph" if isinstance(model, bytes) else str(model)
        first = str(error).strip().split("\n")[0]
        raise InputError(f"{name}: ONNX Runtime cannot load it: {first}. Build it again.") from error
    wanted = provider if isinstance(provider, str) else provider[0]
    if session.get_providers()[0] != wanted:
        raise MachineError(
            f"--device {device}: ONNX Runtime fell back to {session.get_providers()[0]}. "
            "Install the CUDA libraries that its release notes name, or choose --device cpu."
        )
    return session


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
    name = "graph" if isinstance(model, bytes) else str(model)
    return InputError(f"{name}: ONNX Runtime cannot run it on this batch: {first}. Give ids and lengths that it takes.")


@contextmanager
def open_ort(
    model: Path | bytes,
    *,
    device: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    spin: bool = True,
) -> Iterator[Infer]:
    """Yield `infer` of an ONNX graph; `precision` is the graph's own and changes nothing, `threads` and `spin` do."""
    opened = [open_session(model, device=device, threads=threads, spin=spin)]
    names = {entry.name for entry in opened[0].get_inputs()}

    def infer(batch: Batch) -> NDArray[np.float32]:
        feeds = {name: array for name, array in batch.items() if name in names}
        session = opened[0]
        try:
            return np.asarray(session.run(["logits"], feeds)[0], np.float32)
        except Exception as error:
            raise cannot_run(model, error) from error

    try:
        yield infer
    finally:
        opened.clear()  # whoever still holds `infer` holds no session
