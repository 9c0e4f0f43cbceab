"""ONNX Runtime's TensorRT provider, which builds and caches engines itself from a typed graph.

It serves as a comparison for the engines that this toolchain builds. If the provider can run only a part of a graph,
the graph is refused, because a figure measured on a mixture of providers would say nothing about TensorRT. A typed
graph states the type of each tensor, such as float16.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain import graph
from toolchain.base.processors import cpu_threads
from toolchain.base.tensors import Batch, Infer
from toolchain.engine.cuda import compute_capability
from toolchain.engine.releases import import_release
from toolchain.engine.targets import require_units
from toolchain.errors import InputError, MachineError, first_line
from toolchain.runtimes.ort import FATAL, cannot_run, import_onnxruntime

PROVIDER = "TensorrtExecutionProvider"
# The maximum of the provider's only optimisation profile, in rows and tokens per row. Batches with more rows are split.
MOST_ROWS, MOST_TOKENS = 128, 512

# Folder of the provider's engine and timing caches. The provider names these files after graph, GPU and version.
CACHE = Path("engines/build/.ort-trt")


@contextmanager
def open_ort_trt(model: Path, *, device: str = "cuda:0", precision: str = "fp32") -> Iterator[Infer]:
    """Yield `infer`, a function that runs a typed graph on a batch, with the TensorRT provider alone.

    Raises:
        InputError: the provider cannot run the whole graph.
        MachineError: this ONNX Runtime lacks the TensorRT provider, the provider cannot be loaded, or the GPU has no
            units for the precision.
    """
    ort = import_onnxruntime()
    if PROVIDER not in ort.get_available_providers():
        raise MachineError(
            "--backend ort-trt: this ONNX Runtime lacks the TensorRT provider. "
            "Install 'encoder-toolchain[cuda,tensorrt]' on a machine with an NVIDIA GPU."
        )
    if (sm := compute_capability(device)) is not None:
        require_units(precision, sm, device)
    with suppress(MachineError):
        import_release("trt")  # loads TensorRT's library, which the loader would not find in its pip package
    opened = [_session(ort, model, device, precision)]
    names = {entry.name for entry in opened[0].get_inputs()}

    def infer(batch: Batch) -> NDArray[np.float32]:
        session = opened[0]
        feeds = {name: array for name, array in batch.items() if name in names}
        starts = range(0, len(batch["input_ids"]), MOST_ROWS)
        parts = [{name: array[start : start + MOST_ROWS] for name, array in feeds.items()} for start in starts]
        try:
            return np.concatenate([np.asarray(session.run(["logits"], part)[0], np.float32) for part in parts])
        except Exception as error:
            raise cannot_run(model, error) from error

    try:
        yield infer
    finally:
        opened.clear()


def provider_options(device: str, precision: str, inputs: Sequence[str]) -> dict[str, str]:
    """Return the provider's options: one optimisation profile, caches, and the number types that it may use.

    `inputs` are the names of the graph's inputs. Without a profile, the provider would build a new engine whenever a
    batch exceeds the shapes seen so far, even during a measurement.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    shapes = {"min": (1, 1), "opt": (32, 64), "max": (MOST_ROWS, MOST_TOKENS)}
    profile = {
        f"trt_profile_{end}_shapes": ",".join(f"{name}:{rows}x{length}" for name in inputs)
        for end, (rows, length) in shapes.items()
    }
    return {
        **profile,
        "device_id": device.partition(":")[2] or "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(CACHE),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(CACHE),
        # An INT8 graph needs both flags, because its other parts are in float16. A TensorRT whose networks are always
        # strongly typed ignores them.
        "trt_fp16_enable": "1" if precision in ("fp16", "int8", "fp8") else "0",
        "trt_int8_enable": "1" if precision == "int8" else "0",
    }


def input_names(model: Path) -> list[str]:
    """Return the names of a graph's inputs from its file. They are needed before a session exists."""
    return [str(value.name) for value in graph.load(model).graph.inputs]


def _session(ort: Any, model: Path, device: str, precision: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    options.log_severity_level = FATAL
    # Without this entry, nodes that the provider does not support run on the CPU without a warning.
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider: Any = (PROVIDER, provider_options(device, precision, input_names(model)))
    try:
        session = ort.InferenceSession(str(model), options, providers=[provider])
    except Exception as error:  # onnxruntime raises classes of its own, without a common base class
        raise InputError(
            f"{model}: the TensorRT provider cannot run the whole graph: {first_line(error)}. "
            "Build an engine instead, and run it with --backend trt."
        ) from error
    if session.get_providers()[0] != PROVIDER:
        raise MachineError(
            f"--backend ort-trt: ONNX Runtime fell back to {session.get_providers()[0]}. "
            "Install the TensorRT libraries that its release notes name, or choose --backend ort."
        )
    session.disable_fallback()
    return session
