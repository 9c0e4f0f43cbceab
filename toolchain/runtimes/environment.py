"""The environment of a result: versions of packages, processor and GPU of this machine. None means not present."""

import importlib.metadata
import platform
from pathlib import Path
from typing import TypedDict

from toolchain.base.processors import cpu_threads
from toolchain.meters import nvml
from toolchain.records.result import Environment

# Python packages whose versions a bundle records.
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "numpy",
    "scipy",
    "scikit-learn",
    "datasets",
    "evaluate",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-rtx-cu12-bindings",
    "pycuda",
    "nvidia-ml-py",
)

# Flags of x86 processors whose INT8 instructions sum 8-bit products in 32 bits. On a processor without any of these
# flags, pairs of products are summed in 16 bits, which saturates (VPMADDUBSW). For example, OpenVINO then computed the
# sum of 384 products 127 x 127 as 48,960 instead of 6,193,536.
EXACT_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}


class GpuFacts(TypedDict):
    """Driver version, CUDA version and name of the first GPU; if they are None, `reason` says why."""

    driver: str | None
    cuda: str | None
    gpu: str | None
    reason: str | None


def version_of(package: str) -> str | None:
    """Return the installed version of a Python package, or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def tensorrt_version() -> str | None:
    """Return the version of the first TensorRT package that is installed, or None without any."""
    return next(filter(None, map(version_of, ("tensorrt", "tensorrt-cu12", "tensorrt-cu13"))), None)


def cpu_name() -> str:
    """Return the processor's model name, or its architecture if /proc does not state the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def cpu_flags() -> frozenset[str]:
    """Return the feature flags of the first processor in /proc/cpuinfo, such as `avx2`; empty if it lists none."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return frozenset(next((line for line in file if line.startswith("flags")), "").split())
    except OSError:
        return frozenset()


def saturates(flags: frozenset[str]) -> bool:
    """Return whether the usual INT8 kernels on a processor with these flags may saturate, because they sum in 16 bits.

    This concerns x86 processors with AVX2 but without VNNI and AMX. `flags` are those of `cpu_flags`.
    """
    return "avx2" in flags and not EXACT_FLAGS & flags


def gpu_facts() -> GpuFacts:
    """Return driver version, CUDA version and name of the first GPU from NVML, or the reason why they are unknown."""
    try:
        with nvml.open_nvml():
            driver, cuda = nvml.driver_versions()
            return {"driver": driver, "cuda": cuda, "gpu": nvml.all_devices()[0].name, "reason": None}
    except nvml.Unavailable as why:
        return {"driver": None, "cuda": None, "gpu": None, "reason": why.reason}


def describe() -> Environment:
    """Return the `environment` block of a result."""
    gpu = gpu_facts()
    return {
        "python": platform.python_version(),
        "torch": version_of("torch"),
        "transformers": version_of("transformers"),
        "onnxruntime": version_of("onnxruntime") or version_of("onnxruntime-gpu"),
        "openvino": version_of("openvino"),
        "tensorrt": tensorrt_version(),
        "tensorrt_rtx": version_of("tensorrt-rtx-cu12-bindings"),
        "cuda": gpu["cuda"],
        "driver": gpu["driver"],
        "gpu": gpu["gpu"],
        "cpu": cpu_name(),
        "threads": cpu_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
