"""The findings of `toolchain doctor`: what this machine has, what it lacks, and how to install it."""

import ctypes
import importlib.util
import platform
import shutil
from dataclasses import dataclass

from toolchain.base.processors import cpu_threads
from toolchain.data import hub
from toolchain.engine.api import has_implicit_int8
from toolchain.engine.releases import RELEASES, import_release
from toolchain.engine.targets import compute_capabilities
from toolchain.errors import MachineError
from toolchain.meters import rapl
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, open_sources
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.doctor import FindingRecord, State
from toolchain.runtimes.environment import cpu_flags, cpu_name, gpu_facts, saturates, version_of
from toolchain.runtimes.openvino import import_openvino

POWERCAP = rapl.ROOT

# Packages that every installation has.
PACKAGES = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript", "datasets", "evaluate")

# Note beside TensorRT. It accepts an FP8 graph on any GPU, but computes it in float16 on a GPU without FP8 units.
FP8 = f"FP8 from sm{QUANTIZED['fp8'].sm} on, so not on a T4"

# Flag in /proc/cpuinfo -> name of the vector extension; INT8 is fast with VNNI and AMX.
CPU_FEATURES = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}


@dataclass(frozen=True)
class Finding:
    """The result of one check; `advice` says what to do, or how `detail` limits this machine."""

    name: str
    state: State
    detail: str
    advice: str = ""

    def to_json(self) -> FindingRecord:
        """Return the finding as `--json` prints it."""
        return {"name": self.name, "state": self.state, "detail": self.detail, "advice": self.advice}


def examine(*, network: bool = True) -> list[Finding]:
    """Check this machine and return the findings. Nothing is changed, and missing software raises no error.

    With `network`, this also checks whether the Hugging Face hub can be reached.
    """
    return [
        _python(),
        _cpu(),
        *(_package(name) for name in PACKAGES),
        _onnxruntime(),
        _openvino(),
        *_gpu(),
        _gpu_energy(),
        _library(
            "CUDA runtime",
            ("libcudart.so.13", "libcudart.so.12"),
            "install PyTorch for CUDA or the CUDA toolkit; each contains it",
        ),
        *_tensorrt(),
        _tensorrt_rtx(),
        _optional("pycuda", "PyCUDA", "install CUDA's headers, then pip install 'encoder-toolchain[tensorrt]'"),
        _rapl(),
        *([_hub()] if network else []),
    ]


def _python() -> Finding:
    version = platform.python_version()
    fits = (3, 11) <= tuple(map(int, version.split(".")[:2])) <= (3, 13)
    return Finding("Python", "ok" if fits else "broken", version, "" if fits else "Use Python 3.11 to 3.13.")


def _cpu() -> Finding:
    features = _cpu_features()
    detail = f"{cpu_name()}, {cpu_threads()} threads, {features}"
    if "AVX" in features and "VNNI" not in features:
        return Finding("CPU", "ok", detail, "this CPU lacks VNNI, so INT8 is less of a gain here than with VNNI")
    return Finding("CPU", "ok", detail)


def _cpu_features() -> str:
    flags = cpu_flags()
    names = [name for flag, name in CPU_FEATURES.items() if flag in flags]
    return ", ".join(names) or "no known vector extensions"


def _package(name: str) -> Finding:
    version = version_of(name)
    if version:
        return Finding(name, "ok", version)
    return Finding(name, "missing", "not installed", "pip install 'encoder-toolchain[cpu]'")


def _onnxruntime() -> Finding:
    cpu, gpu = version_of("onnxruntime"), version_of("onnxruntime-gpu")
    if cpu and gpu:
        return Finding(
            "ONNX Runtime",
            "broken",
            f"onnxruntime {cpu} and onnxruntime-gpu {gpu}",
            "These packages overwrite each other's files. Run pip uninstall -y onnxruntime onnxruntime-gpu, then "
            "pip install 'encoder-toolchain[cpu]', or [cuda] with an NVIDIA GPU.",
        )
    if not cpu and not gpu:
        advice = "pip install 'encoder-toolchain[cpu]', or [cuda] with an NVIDIA GPU"
        return Finding("ONNX Runtime", "missing", "neither package is installed", advice)
    try:
        import onnxruntime
    except ImportError as error:
        advice = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'encoder-toolchain[cpu]' or [cuda]"
        return Finding("ONNX Runtime", "broken", f"{cpu or gpu}: {error}", advice)
    short = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return Finding("ONNX Runtime", "ok", f"{cpu or gpu} ({', '.join(short)})")


def _openvino() -> Finding:
    """Import OpenVINO; return its version and whether it computes INT8 exactly on this processor."""
    version, advice = version_of("openvino"), "optional runtime for CPUs: pip install 'encoder-toolchain[openvino]'"
    if version is None:
        return Finding("OpenVINO", "missing", "not installed", advice)
    try:
        import_openvino()
    except MachineError as error:
        return Finding("OpenVINO", "broken", str(error.__cause__), advice)
    kernels = "INT8 graphs run in float32 without VNNI or AMX" if saturates(cpu_flags()) else "INT8 is exact here"
    return Finding("OpenVINO", "ok", f"{version}: {kernels}")


def _gpu() -> list[Finding]:
    facts = gpu_facts()
    if facts["reason"] is None:
        return [
            Finding("GPU", "ok", str(facts["gpu"])),
            Finding("NVML", "ok", f"driver {facts['driver']}, supports up to CUDA {facts['cuda']}"),
        ]
    smi = "nvidia-smi is installed" if shutil.which("nvidia-smi") else "nvidia-smi is not installed"
    return [
        Finding("GPU", "missing", smi, "a GPU is needed only for CUDA, TensorRT and GPU energy"),
        Finding("NVML", "missing", facts["reason"], "it is part of NVIDIA's driver"),
    ]


def _gpu_energy() -> Finding:
    """Open the sensors that `eval --energy` reads: energy may not be measurable although NVML can be loaded."""
    with open_sources(powercap=POWERCAP) as found:
        methods = {source.device: source.method for source in reversed(found.sources) if source.component == BOARD}
        shown = {COUNTER: "energy counter", INTEGRAL: "integrated power"}
        boards = [f"{gpu.name}: {shown[methods[gpu.uuid]]}" for gpu in found.gpus if gpu.uuid in methods]
    if BOARD in found.missing:
        detail = "; ".join([*boards, found.missing[BOARD][1]])
        advice = (
            "GPU energy will be null in results. Virtual machines and MIG slices often lack it; use a whole GPU of a "
            "physical machine"
        )
        return Finding("GPU energy", "missing", detail, advice)
    return Finding("GPU energy", "ok", "; ".join(boards))


def _library(name: str, candidates: tuple[str, ...], advice: str) -> Finding:
    for candidate in candidates:
        try:
            ctypes.CDLL(candidate)
        except OSError:
            continue
        return Finding(name, "ok", candidate)
    return Finding(name, "missing", f"none of {', '.join(candidates)} can be loaded", advice)


def _optional(module: str, name: str, advice: str) -> Finding:
    if importlib.util.find_spec(module):
        return Finding(name, "ok", version_of(module) or "installed")
    return Finding(name, "missing", "not installed", advice)


def _tensorrt() -> list[Finding]:
    """Import TensorRT and return what it supports: the package may be installed without the libraries that it loads."""
    advice = "on a machine with an NVIDIA GPU: pip install 'encoder-toolchain[cuda,tensorrt]'"
    if not importlib.util.find_spec("tensorrt"):
        return [Finding("TensorRT", "missing", "not installed", advice)]
    try:
        trt = import_release("trt")
    except MachineError as error:
        return [Finding("TensorRT", "broken", str(error), advice)]
    paths = "INT8 with Q/DQ nodes or its own calibration" if has_implicit_int8(trt) else "INT8 with Q/DQ nodes only"
    return [Finding("TensorRT", "ok", f"{trt.__version__}: {paths}; {FP8}")]


def _tensorrt_rtx() -> Finding:
    """Import TensorRT-RTX, and return for which compute capabilities it compiles."""
    advice = "to compile engines without a GPU, on Linux x86-64: pip install 'encoder-toolchain[rtx]'"
    if not importlib.util.find_spec(RELEASES["trt-rtx"].module):
        return Finding("TensorRT-RTX", "missing", "not installed", advice)
    try:
        trt = import_release("trt-rtx")
    except MachineError as error:
        return Finding("TensorRT-RTX", "broken", str(error), advice)
    targets = ", ".join(f"sm{sm}" for sm in compute_capabilities(trt))
    return Finding("TensorRT-RTX", "ok", f"{trt.__version__}: compiles for {targets}; {FP8}")


def _rapl() -> Finding:
    zones, reason = rapl.find_zones(POWERCAP)
    if reason == rapl.ABSENT:
        return Finding("RAPL", "missing", "no energy counters", "virtual machines lack them: use a physical machine")
    if reason == rapl.PERMISSION:
        advice = f"run as root, after each boot: chmod a+r {POWERCAP}/*/energy_uj"
        return Finding("RAPL", "broken", "this user may not read the energy counters", advice)
    return Finding("RAPL", "ok", ", ".join(zone.name for zone in zones))


def _hub() -> Finding:
    if reason := hub.unreachable():
        return Finding("Hub", "missing", reason, "use local folders: -m DIR --data DIR, or -m demo --task demo")
    return Finding("Hub", "ok", "it can be reached")
