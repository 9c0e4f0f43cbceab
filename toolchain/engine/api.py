"""What a TensorRT module can do, and a collector of its log. releases.py imports the module.

Abilities are looked up by name and never concluded from the version: TensorRT 11 has other names than 10, and its
enumerations have other numbers.
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

from toolchain.engine.kernels import HEADING
from toolchain.errors import MachineError

log = logging.getLogger(__name__)

# Texts in TensorRT's log.
MISSING_SCALE = re.compile(r"Missing scale and zero-point for tensor (?P<tensor>.+?), expect")
FLOAT32_GEMM = re.compile(r"Cannot compile operation '(?P<node>.*?)' for Turing.*FP32 GEMM is not supported")
OUT_OF_MEMORY = re.compile(r"out of memory|outofmemory|insufficient memory|CUDA_ERROR_OUT_OF_MEMORY", re.IGNORECASE)


def preload_cublas() -> bool:
    """Load cuBLAS from its pip package; return whether the package is installed.

    The attention plugin opens libcublas by its bare name, which the loader finds only if the library is already loaded
    or lies on the loader's path.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) / "cublas" / "lib" for place in (spec.submodule_search_locations or ())] if spec else []
    found = [file for folder in folders for file in sorted(folder.glob("libcublas*.so.*"), reverse=True)]
    for file in found:  # libcublasLt comes first, because libcublas needs it
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
    return bool(found)


@dataclass
class LogCollector:
    """The messages that TensorRT logged.

    Errors and warnings in order, the tensors that it found no scale for, and TensorRT-RTX's lists of the layers that it
    compiled, one for each optimisation profile.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing_scales: list[str] = field(default_factory=list)
    layer_lists: list[str] = field(default_factory=list)

    def add(self, level: str, message: str) -> None:
        """Collect one message that TensorRT logged at `level`, a name of its Severity."""
        log.debug("TensorRT %s: %s", level, message)
        if level == "VERBOSE" and message.startswith(HEADING):
            self.layer_lists.append(message)
        elif level.endswith("ERROR"):
            self.errors.append(message)
        elif level == "WARNING":
            self.warnings.append(message)
            if found := MISSING_SCALE.search(message):
                self.missing_scales.append(found["tensor"])

    @property
    def first_error(self) -> str:
        """The first error on one line, or a text that says that there is none."""
        return " ".join(self.errors[0].split()).rstrip(".") if self.errors else "it logged no error"

    @property
    def float32_gemm(self) -> str | None:
        """The name of a GEMM in float32 that TensorRT-RTX refuses to compile for Turing, or None."""
        return next((found["node"] for line in self.errors if (found := FLOAT32_GEMM.search(line))), None)

    @property
    def out_of_memory(self) -> bool:
        """Whether an error is about missing memory."""
        return any(OUT_OF_MEMORY.search(line) for line in self.errors)


def make_logger(trt: Any) -> tuple[Any, LogCollector]:
    """Return a logger for TensorRT, and the collector of its messages.

    The logger must live longer than every object that it is given to.
    """
    messages = LogCollector()

    class Logger(trt.ILogger):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            messages.add(severity.name, msg)

    return Logger(), messages


def make_profiler(trt: Any, report: Callable[[str, float], None]) -> Any:
    """Return a profiler for an execution context: after each run, it calls `report` with a layer's name and its ms."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms)

    return Profiler()


def create(kind: Any, logger: Any, messages: LogCollector) -> Any:
    """Return a Builder or a Runtime, whichever `kind` is.

    Raises:
        MachineError: TensorRT cannot start, because the driver is too old or the GPU is not supported.
    """
    try:
        made = kind(logger)
    except TypeError:  # the bindings raise it for a null pointer
        made = None
    if made is None:
        raise MachineError(
            f"TensorRT: cannot start: {messages.first_error}. Check that the driver is new enough (r535 for CUDA 12, "
            "r580 for CUDA 13) and that TensorRT supports this GPU: `toolchain doctor`."
        )
    return made


def has_implicit_int8(trt: Any) -> bool:
    """Return whether this release takes a calibrator, and scales from outside the graph: TensorRT 8 and 10 do."""
    return hasattr(trt, "IInt8EntropyCalibrator2") and "INT8" in trt.BuilderFlag.__members__


def network_flags(trt: Any, *, strongly_typed: bool) -> int:
    """Return the flags for create_network; the bits differ between releases.

    TensorRT 8 has no strongly typed networks, and needs a flag for an explicit batch dimension, which later ones imply.
    """
    flags = trt.NetworkDefinitionCreationFlag.__members__
    if "STRONGLY_TYPED" not in flags:
        return 1 << int(flags["EXPLICIT_BATCH"])
    return 1 << int(flags["STRONGLY_TYPED"]) if strongly_typed else 0


def version_number(version: str) -> int:
    """Return NV_TENSORRT_VERSION (NvInferVersion.h): 10.16.1.11 -> 101601; before TensorRT 10, 8.6.1 -> 8601."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def major_of(version: str) -> int:
    """Return the major version, the key of tables of operators and of container images."""
    return int(version.split(".")[0])
