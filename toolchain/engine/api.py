"""TensorRT itself: found, asked what it can do, and listened to.

What a release can do is asked of it by name, never concluded from its version: TensorRT 11 has other names than 10,
and its enumerations other numbers.
"""

import contextlib
import ctypes
import importlib.util
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolchain.errors import MachineError

log = logging.getLogger(__name__)

INSTALL = (
    "pip install 'encoder-toolchain[cuda,tensorrt]' on a machine with an NVIDIA GPU; `toolchain doctor` tells more"
)

MISSING_SCALE = re.compile(r"Missing scale and zero-point for tensor (?P<tensor>.+?), expect")
OUT_OF_MEMORY = re.compile(r"out of memory|outofmemory|insufficient memory|CUDA_ERROR_OUT_OF_MEMORY", re.IGNORECASE)


def import_tensorrt() -> Any:
    """Return the tensorrt module, its stock plugins not yet registered.

    Raises:
        MachineError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        missing = "not installed" if getattr(error, "name", None) == "tensorrt" else f"cannot be loaded ({error})"
        raise MachineError(f"TensorRT: {missing}. {INSTALL}.") from error


def preload_cublas() -> bool:
    """Load the cuBLAS of its own pip package, if that is installed; return whether it was.

    The attention plugin opens libcublas by its bare name, which the loader finds only if it is loaded already or lies
    on its path.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) / "cublas" / "lib" for place in (spec.submodule_search_locations or ())] if spec else []
    found = [file for folder in folders for file in sorted(folder.glob("libcublas*.so.*"), reverse=True)]
    for file in found:  # libcublasLt first: the other needs it
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
    return bool(found)


@dataclass
class Heard:
    """What TensorRT said: errors and warnings in order, and the tensors that it found no scale for."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing_scales: list[str] = field(default_factory=list)

    def add(self, level: str, message: str) -> None:
        """Take one line that TensorRT logged at `level`, a name of its Severity."""
        log.debug("TensorRT %s: %s", level, message)
        if level.endswith("ERROR"):
            self.errors.append(message)
        elif level == "WARNING":
            self.warnings.append(message)
            if found := MISSING_SCALE.search(message):
                self.missing_scales.append(found["tensor"])

    @property
    def why(self) -> str:
        """The first error, on one line."""
        return " ".join(self.errors[0].split()).rstrip(".") if self.errors else "it does not say why"

    @property
    def out_of_memory(self) -> bool:
        """Whether an error is about memory."""
        return any(OUT_OF_MEMORY.search(line) for line in self.errors)


def make_logger(trt: Any) -> tuple[Any, Heard]:
    """Return a logger to hand to TensorRT, which must outlive all that it is given to, and what it hears."""
    heard = Heard()

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            heard.add(severity.name, msg)

    return Logger(), heard


def make_profiler(trt: Any, report: Callable[[str, float], None]) -> Any:
    """Return what a context tells the milliseconds of each layer, by name, as soon as it has run."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms)

    return Profiler()


def start(kind: Any, logger: Any, heard: Heard) -> Any:
    """Return a Builder or a Runtime.

    Raises:
        MachineError: TensorRT cannot start: a driver too old for it, or a GPU that it does not know.
    """
    try:
        made = kind(logger)
    except TypeError:  # what the bindings raise for a null pointer
        made = None
    if made is None:
        raise MachineError(
            f"TensorRT: cannot start: {heard.why}. Check that the driver is new enough for it (r535 for CUDA 12, r580 "
            "for CUDA 13) and that it supports this GPU: `toolchain doctor`."
        )
    return made


def has_implicit_int8(trt: Any) -> bool:
    """Whether this release takes a calibrator and scales from outside the graph: TensorRT 10 does, 11 does not."""
    return hasattr(trt, "IInt8EntropyCalibrator2") and "INT8" in trt.BuilderFlag.__members__


def network_flags(trt: Any, *, strongly_typed: bool) -> int:
    """Return the flags of create_network; the bits differ between releases."""
    flags = trt.NetworkDefinitionCreationFlag.__members__
    return 1 << int(flags["STRONGLY_TYPED"]) if strongly_typed and "STRONGLY_TYPED" in flags else 0


def version_number(version: str) -> int:
    """Return NV_TENSORRT_VERSION (NvInferVersion.h, from TensorRT 10): 10.16.1.11 -> 101601."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major * 10000 + minor * 100 + patch


def major_of(version: str) -> int:
    """Return the major version, by which tables of operators and containers are kept."""
    return int(version.split(".")[0])
