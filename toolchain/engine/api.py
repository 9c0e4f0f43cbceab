"""Helper functions for the Python module of TensorRT, `trt`: its log, its objects, and the features that it has.

releases.py imports the module. Features are looked up by name and never concluded from the version, because TensorRT 11
differs from 10 in names and in the values of enumerations.
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

# Patterns of the messages in TensorRT's log that LogCollector looks for.
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
    for file in found:  # in this order libcublasLt comes first, which libcublas needs
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(file), mode=ctypes.RTLD_GLOBAL)
    return bool(found)


@dataclass
class LogCollector:
    """Collects the messages that TensorRT logs.

    `errors` and `warnings` are in order. `missing_scales` names the tensors for which TensorRT has no INT8 scale.
    `layer_lists` has TensorRT-RTX's list of the layers that it compiled, one for each optimisation profile.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing_scales: list[str] = field(default_factory=list)
    layer_lists: list[str] = field(default_factory=list)

    def add(self, level: str, message: str) -> None:
        """Collect one message of TensorRT's log. `level` is the name of its severity, such as WARNING."""
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
        """The first error, on one line, or "it logged no error"."""
        return " ".join(self.errors[0].split()).rstrip(".") if self.errors else "it logged no error"

    @property
    def float32_gemm(self) -> str | None:
        """The name of a float32 GEMM that TensorRT-RTX cannot compile for Turing; None if no error names one."""
        return next((found["node"] for line in self.errors if (found := FLOAT32_GEMM.search(line))), None)

    @property
    def out_of_memory(self) -> bool:
        """Whether an error says that memory ran out."""
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
    """Return an IProfiler that calls `report(layer, ms)` for each layer after each run of an execution context."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms)

    return Profiler()


def create(kind: Any, logger: Any, messages: LogCollector) -> Any:
    """Return an instance of `kind`, which is `trt.Builder` or `trt.Runtime`.

    Raises:
        MachineError: TensorRT cannot start, for example because the driver is too old for it.
    """
    try:
        made = kind(logger)
    except TypeError:  # raised by the bindings if the C++ function returns a null pointer
        made = None
    if made is None:
        raise MachineError(
            f"TensorRT: it cannot start: {messages.first_error}. Check with `toolchain doctor` that the driver is new "
            "enough (r535 for CUDA 12, r580 for CUDA 13) and that TensorRT supports this GPU."
        )
    return made


def has_implicit_int8(trt: Any) -> bool:
    """Return whether this release can take INT8 scales from a calibrator, without Q/DQ nodes. TensorRT 8 and 10 can."""
    return hasattr(trt, "IInt8EntropyCalibrator2") and "INT8" in trt.BuilderFlag.__members__


def network_flags(trt: Any, *, strongly_typed: bool) -> int:
    """Return the flags for create_network, whose bits differ between releases.

    TensorRT 8 lacks strongly typed networks, and needs a flag for an explicit batch dimension. Later releases imply it.
    """
    flags = trt.NetworkDefinitionCreationFlag.__members__
    if "STRONGLY_TYPED" not in flags:
        return 1 << int(flags["EXPLICIT_BATCH"])
    return 1 << int(flags["STRONGLY_TYPED"]) if strongly_typed else 0


def version_number(version: str) -> int:
    """Return a version as in NV_TENSORRT_VERSION (NvInferVersion.h): 10.16.1.11 -> 101601; below 10, 8.6.1 -> 8601."""
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def major_of(version: str) -> int:
    """Return the major version, such as 10 for "10.16.1.11"."""
    return int(version.split(".")[0])
