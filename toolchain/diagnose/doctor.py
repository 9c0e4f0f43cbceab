"""What this machine has and lacks for each step, and how to get it."""

import ctypes
import importlib.util
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from toolchain.data import hub
from toolchain.engine.api import has_implicit_int8, import_tensorrt
from toolchain.errors import MachineError
from toolchain.meters import rapl
from toolchain.meters.sources import BOARD, COUNTER, INTEGRAL, open_sources
from toolchain.runtimes.device import cpu_threads
from toolchain.runtimes.environment import cpu_name, gpu_facts, version_of

POWERCAP = rapl.ROOT


@dataclass(frozen=True)
class Finding:
    """One thing looked for: `state` is ok, missing or broken; `advice` says what to do if not ok."""

    name: str
    state: str
    detail: str
    advice: str = ""


def examine(*, network: bool = True) -> list[Finding]:
    """Look at everything; never raises, and changes nothing."""
    return [
        _python(),
        _cpu(),
        *(_package(name, extra) for name, extra in PACKAGES.items()),
        _onnxruntime(),
        *_gpu(),
        _gpu_energy(),
        _library(
            "CUDA runtime", ("libcudart.so.13", "libcudart.so.12"), "comes with torch's CUDA build, or CUDA's own"
        ),
        *_tensorrt(),
        _optional("polygraphy", "Polygraphy", "pip install 'encoder-toolchain[tensorrt]'"),
        _optional("pycuda", "PyCUDA", "install CUDA's headers, then pip install 'encoder-toolchain[tensorrt]'"),
        _rapl(),
        *([_hub()] if network else []),
    ]


PACKAGES = {
    "torch": "",
    "transformers": "",
    "onnx": "",
    "onnx-ir": "",
    "onnxscript": "",
    "datasets": "",
    "evaluate": "",
}


def _python() -> Finding:
    version = platform.python_version()
    fits = (3, 11) <= tuple(map(int, version.split(".")[:2])) <= (3, 13)
    return Finding("Python", "ok" if fits else "broken", version, "" if fits else "Use Python 3.11 to 3.13.")


def _cpu() -> Finding:
    features = _cpu_features()
    detail = f"{cpu_name()}, {cpu_threads()} threads, {features}"
    if "AVX" in features and "VNNI" not in features:
        # Without it, uint8 x int8 is summed in pairs of 16 bits, which can saturate.
        return Finding("CPU", "ok", detail, "no VNNI: check the accuracy of INT8 here, its sums can saturate")
    return Finding("CPU", "ok", detail)


def _cpu_features() -> str:
    flags = set()
    with_flags = Path("/proc/cpuinfo")
    if with_flags.exists():
        flags = set(
            next((line for line in with_flags.read_text().splitlines() if line.startswith("flags")), "").split()
        )
    known = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}
    names = [name for flag, name in known.items() if flag in flags]
    return ", ".join(names) or "no vector features known"


def _package(name: str, extra: str) -> Finding:
    version = version_of(name)
    if version:
        return Finding(name, "ok", version)
    return Finding(name, "missing", "not installed", f"pip install 'encoder-toolchain{extra}'")


def _onnxruntime() -> Finding:
    cpu, gpu = version_of("onnxruntime"), version_of("onnxruntime-gpu")
    if cpu and gpu:
        return Finding(
            "ONNX Runtime",
            "broken",
            f"onnxruntime {cpu} and onnxruntime-gpu {gpu}",
            "They overwrite each other. pip uninstall -y onnxruntime onnxruntime-gpu, then install one: "
            "'encoder-toolchain[cpu]' or [cuda].",
        )
    if not cpu and not gpu:
        advice = "pip install 'encoder-toolchain[cpu]', or [cuda] with an NVIDIA GPU"
        return Finding("ONNX Runtime", "missing", "neither package", advice)
    try:
        import onnxruntime
    except ImportError as error:
        advice = "pip uninstall -y onnxruntime onnxruntime-gpu, then install 'encoder-toolchain[cpu]' or [cuda]"
        return Finding("ONNX Runtime", "broken", f"{cpu or gpu}: {error}", advice)
    short = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return Finding("ONNX Runtime", "ok", f"{cpu or gpu} ({', '.join(short)})")


def _gpu() -> list[Finding]:
    facts = gpu_facts()
    if facts["reason"] is None:
        return [
            Finding("GPU", "ok", facts["gpu"]),
            Finding("NVML", "ok", f"driver {facts['driver']}, up to CUDA {facts['cuda']}"),
        ]
    smi = "nvidia-smi is there" if shutil.which("nvidia-smi") else "no nvidia-smi"
    return [
        Finding("GPU", "missing", smi, "needed for CUDA, TensorRT and GPU energy only"),
        Finding("NVML", "missing", facts["reason"], "comes with NVIDIA's driver"),
    ]


def _gpu_energy() -> Finding:
    """Read what `eval --energy` would: that NVML loads does not say that it measures."""
    with open_sources(powercap=POWERCAP) as found:
        methods = {source.device: source.method for source in reversed(found.sources) if source.component == BOARD}
        shown = {COUNTER: "its counter", INTEGRAL: "its power, which is integrated"}
        boards = [f"{gpu.name}: {shown[methods[gpu.uuid]]}" for gpu in found.gpus if gpu.uuid in methods]
    if BOARD in found.missing:
        detail = "; ".join([*boards, found.missing[BOARD][1]])
        return Finding("GPU energy", "missing", detail, "GPU energy will be null; guests and slices often have none")
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
    """Import it, since its package can be there without the libraries that it loads; ask what its release can do."""
    advice = "on a machine with an NVIDIA GPU: pip install 'encoder-toolchain[cuda,tensorrt]'"
    if not importlib.util.find_spec("tensorrt"):
        return [Finding("TensorRT", "missing", "not installed", advice)]
    try:
        trt = import_tensorrt()
    except MachineError as error:
        return [Finding("TensorRT", "broken", str(error), advice)]
    roads = "Q/DQ and native INT8 calibration" if has_implicit_int8(trt) else "INT8 by Q/DQ only"
    return [Finding("TensorRT", "ok", f"{trt.__version__}: {roads}")]


def _rapl() -> Finding:
    zones, reason = rapl.find_zones(POWERCAP)
    if reason == rapl.ABSENT:
        return Finding("RAPL", "missing", "no energy counters", "virtual machines have none; use real hardware")
    if reason == rapl.PERMISSION:
        advice = f"as root: chmod a+r {POWERCAP}/*/energy_uj (until the next boot)"
        return Finding("RAPL", "broken", "not readable by this user", advice)
    return Finding("RAPL", "ok", ", ".join(zone.name for zone in zones))


def _hub() -> Finding:
    if reason := hub.unreachable():
        return Finding("Hub", "missing", reason, "use local folders: -m DIR --data DIR, or -m demo --task demo")
    return Finding("Hub", "ok", "answers")
