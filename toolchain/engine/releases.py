"""The releases of TensorRT: one table of the differences between their libraries.

Code that concerns engines takes the Python module of a release as its argument `trt`, and looks its features up by name
(`hasattr`). `RELEASES` has the differences that cannot be found in this way. Otherwise the APIs are nearly the same.

trt      TensorRT 10 and 11, and 8.6. An engine is built on the GPU on which it runs.
trt-rtx  TensorRT-RTX. It compiles on any machine for all GPUs that it supports, and chooses kernels when the plan is
         loaded.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolchain.errors import MachineError


@dataclass(frozen=True)
class Release:
    """A family of TensorRT libraries, with its differences from the others."""

    # Name of the release in messages.
    name: str
    # Backend that runs plans of the release.
    backend: str
    # Python module with the release's bindings.
    module: str
    # Part of a plan's tag that names the release: sm75-trt10.16.1.11, sm75-rtx1.7.1.116.
    mark: str
    # How to install the release, for messages.
    install: str
    # Precision -> the graph in a bundle from which an engine is built.
    graphs: Mapping[str, str]
    # Engine option that the release lacks -> why, and what to use instead.
    lacks: Mapping[str, str] = field(default_factory=dict)
    # Whether the release builds plans for GPUs that this machine lacks.
    cross: bool = False
    # Precision -> builder flags, for a release without strongly typed networks. A strongly typed network needs none.
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


RELEASES: dict[str, Release] = {
    "trt": Release(
        "TensorRT",
        backend="trt",
        module="tensorrt",
        mark="trt",
        install="Run pip install 'encoder-toolchain[cuda,tensorrt]' on a machine with an NVIDIA GPU; "
        "`toolchain doctor` shows more",
        graphs={"fp32": "model.onnx", "fp16": "model.fp16.onnx", "int8": "model.int8.onnx", "fp8": "model.fp8.onnx"},
    ),
    "trt-rtx": Release(
        "TensorRT-RTX",
        backend="trt-rtx",
        module="tensorrt_rtx_bindings",
        mark="rtx",
        install="Run pip install 'encoder-toolchain[rtx]' on Linux x86-64; builds need no GPU",
        graphs={
            "fp32": "model.onnx",
            "fp16": "model.fp16.onnx",
            "int8": "model.int8.rtx.onnx",
            "fp8": "model.fp8.onnx",
        },
        lacks={
            "version_compatible": "each version of it runs only plans that the same version built",
            "hardware_compatible": "--target names the GPUs, and a plan for sm80 or later also runs on later GPUs",
            "calibrator": "it has no calibrator, and takes scales from the graph",
            "attention": "it has no attention plugin, and fuses attention itself",
            "buckets": "it adapts its kernels to each shape at run time, so one profile (--seq-len) is enough",
            "optimization_level": "its compiler makes the same plan at every level",
        },
        cross=True,
    ),
}


# TensorRT 8.6: the release of the backend trt whose networks are not strongly typed.
TENSORRT_8 = dataclasses.replace(
    RELEASES["trt"],
    name="TensorRT 8",
    graphs={"fp32": "model.fp32.trt8.onnx", "fp16": "model.fp16.trt8.onnx", "int8": "model.int8.trt8.onnx"},
    flags={
        "fp32": (),
        "fp16": ("FP16", "OBEY_PRECISION_CONSTRAINTS"),
        "int8": ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"),
    },
)


def release_of(trt: Any) -> Release:
    """Return the release of a Python module of TensorRT: an entry of RELEASES, or TENSORRT_8."""
    release = next(release for release in RELEASES.values() if release.module == trt.__name__)
    strongly_typed = "STRONGLY_TYPED" in trt.NetworkDefinitionCreationFlag.__members__
    return release if strongly_typed else TENSORRT_8


def import_release(backend: str) -> Any:
    """Import the TensorRT module that builds and runs the plans of a backend. Its plugins are not registered yet.

    Raises:
        MachineError: the module is not installed, or its libraries cannot be loaded.
    """
    release = RELEASES[backend]
    try:
        return importlib.import_module(release.module)
    except (ImportError, OSError) as error:
        absent = getattr(error, "name", None) == release.module
        missing = "it is not installed" if absent else f"it cannot be loaded ({error})"
        raise MachineError(f"{release.name}: {missing}. {release.install}.") from error
