"""ONNX Runtime's TensorRT provider: the typed graph, its engines made and kept by the provider.

A comparison for our own engines. Whatever the provider would leave to another one is refused, since a figure of half
an engine is a figure of nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import InputError, MachineError
from toolchain.runtimes.device import cpu_threads
from toolchain.runtimes.ort import FATAL, cannot_run, import_onnxruntime
from toolchain.tensors import Batch, Infer

PROVIDER = "TensorrtExecutionProvider"
CACHE = Path("engines/build/.ort-trt")
"""Engines and timings that the provider keeps; it names them after graph, GPU and version itself."""


@contextmanager
def open_ort_trt(model: Path, *, device: str = "cuda:0", precision: str = "fp32") -> Iterator[Infer]:
    """Yield `infer` of a typed graph on the TensorRT provider alone.

    Raises:
        InputError: the provider cannot take the whole graph.
        MachineError: this ONNX Runtime has no TensorRT provider, or it cannot be loaded.
    """
    ort = import_onnxruntime()
    if PROVIDER not in ort.get_available_providers():
        raise MachineError(
            "--backend ort-trt: this ONNX Runtime has no TensorRT provider. "
            "Install 'encoder-toolchain[cuda,tensorrt]' on a machine with an NVIDIA GPU."
        )
    opened = [_session(ort, model, device, precision)]
    names = {entry.name for entry in opened[0].get_inputs()}

    def infer(batch: Batch) -> NDArray[np.float32]:
        session = opened[0]
        try:
            feeds = {name: array for name, array in batch.items() if name in names}
            return np.asarray(session.run(["logits"], feeds)[0], np.float32)
        except Exception as error:
            raise cannot_run(model, error) from error

    try:
        yield infer
    finally:
        opened.clear()


def provider_options(device: str, precision: str) -> dict[str, str]:
    """Return the provider's options: caches on, and the types that the graph is in allowed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return {
        "device_id": device.partition(":")[2] or "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(CACHE),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(CACHE),
        # A graph with Q/DQ nodes needs both; a TensorRT that is always strongly typed passes over them.
        "trt_fp16_enable": "1" if precision in ("fp16", "int8") else "0",
        "trt_int8_enable": "1" if precision == "int8" else "0",
    }


def _session(ort: Any, model: Path, device: str, precision: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    options.log_severity_level = FATAL
    # Without this, nodes that the provider does not take run on the CPU in silence.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider: Any = (PROVIDER, provider_options(device, precision))
    try:
        session = ort.InferenceSession(str(model), options, providers=[provider])
    except Exception as error:  # onnxruntime raises classes of its own binding, with no common base
        first = str(error).strip().split("\n")[0]
        raise InputError(
            f"{model}: the TensorRT provider cannot take all of it: {first}. See --backend trt."
        ) from error
    if session.get_providers()[0] != PROVIDER:
        raise MachineError(
            f"--backend ort-trt: ONNX Runtime fell back to {session.get_providers()[0]}. "
            "Install the TensorRT libraries that its release notes name, or choose --backend ort."
        )
    session.disable_fallback()
    return session
