"""Tables that recipes and many other packages use: backends, range methods, and the values of some options.

Functions in the tables are named as `module:function` and imported only when they are used, so that the command line
starts quickly.
"""

import importlib
import re
from dataclasses import dataclass
from typing import Any, Literal


def imported(name: str) -> Any:
    """Import and return the object that `module:function` names."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


@dataclass(frozen=True)
class Backend:
    """A runtime or a server that runs models, and what it can do. toolchain/runtimes/__init__.py describes `opener`."""

    # The context manager that opens the model, as `module:function`.
    opener: str
    # What it runs: a checkpoint, an ONNX graph, a TensorRT plan, or a model on a server.
    runs: Literal["checkpoint", "graph", "plan", "server"]
    # Whether it uses a GPU: never (False), always (True), or if a function (`module:function`) returns True.
    gpu: bool | str = False
    # Whether it can capture CUDA graphs.
    cuda_graphs: bool = False
    # Whether it can run graphs that are made for one kind of device, such as model.int8.cpu.onnx.
    device_graphs: bool = False
    # Whether, on a CPU with AVX-512 VNNI, it is faster with model.int8.onnx, whose attention is in INT8 too, than with
    # model.int8.cpu.onnx.
    integer_attention: bool = False
    # Whether, on a CPU, it takes `threads`, `callers` and `spin`, and several threads may call its `infer` at once.
    callers: bool = False
    # Whether it takes `digests` of the model's files, and runs exactly the bytes whose digests it has checked.
    checks: bool = False


BACKENDS: dict[str, Backend] = {
    "torch": Backend(
        "toolchain.runtimes.pytorch:open_torch",
        runs="checkpoint",
        gpu="toolchain.runtimes.pytorch:has_gpu",
        cuda_graphs=True,
    ),
    "ort": Backend(
        "toolchain.runtimes.ort:open_ort",
        runs="graph",
        gpu="toolchain.runtimes.ort:has_gpu",
        cuda_graphs=True,
        device_graphs=True,
        callers=True,
        checks=True,
    ),
    "openvino": Backend(
        "toolchain.runtimes.openvino:open_openvino",
        runs="graph",
        device_graphs=True,
        integer_attention=True,
        callers=True,
        checks=True,
    ),
    "trt": Backend("toolchain.runtimes.trt:open_trt", runs="plan", gpu=True, cuda_graphs=True, checks=True),
    "trt-rtx": Backend("toolchain.runtimes.trt:open_rtx", runs="plan", gpu=True, cuda_graphs=True, checks=True),
    "ort-trt": Backend("toolchain.runtimes.ort_trt:open_ort_trt", runs="graph", gpu=True),
    "triton": Backend("toolchain.runtimes.remote:open_remote", runs="server"),
    "service": Backend("toolchain.runtimes.remote:open_remote", runs="server"),
}


# The value of --backend with which `eval`, `predict` and `serve` choose a runtime for CPUs (runtime_choice.py).
AUTO = "auto"


def is_remote(backend: str | None) -> bool:
    """Return whether a backend is a server, which may be on another machine; False for None."""
    return backend in BACKENDS and BACKENDS[backend].runs == "server"


def capturing() -> list[str]:
    """Return the names of the backends that can capture CUDA graphs."""
    return [name for name, backend in BACKENDS.items() if backend.cuda_graphs]


# Range method -> function that computes the amax of a tensor from its histogram. `auto` is not in this table, because
# it tries several of these methods.
METHODS: dict[str, str] = {
    "entropy": "toolchain.int8.range_methods:entropy",
    "minmax": "toolchain.int8.range_methods:minmax",
    "percentile": "toolchain.int8.range_methods:percentile",
    "mse": "toolchain.int8.range_methods:mse",
}

# The name of a range method that contains its percentile, such as percentile-99.9.
PERCENTILE = re.compile(r"percentile-(\d+(?:\.\d+)?)")


def is_method(name: str) -> bool:
    """Return whether `name` is a range method: one of METHODS, or percentile-P with a P above 50 and up to 100."""
    found = PERCENTILE.fullmatch(name)
    return name in METHODS or (found is not None and 50 < float(found[1]) <= 100)


PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8", "int4")


@dataclass(frozen=True)
class Quantized:
    """A precision in which GEMMs multiply 8-bit numbers, with scales from calibration."""

    # Its name in messages.
    title: str
    # The largest number of the type, to which the amax of a tensor is mapped.
    largest: float
    # The range method for a recipe that has neither `calib_method` nor a gate.
    method: str
    # The lowest compute capability, times ten, of a GPU with matrix multiplication in this type, and its architecture.
    sm: int
    since: str


# INT8 uses -127..127 without -128, so that x and -x have the same scale. FP8 is E4M3, which has 3 mantissa bits and the
# maximum 448 (Micikevicius et al., "FP8 Formats for Deep Learning", 2022). The relative precision of a floating-point
# number does not depend on the range, so clipping gains nothing, and the default is minmax. Ada (8.9) is NVIDIA's first
# architecture with FP8.
QUANTIZED: dict[str, Quantized] = {
    "int8": Quantized("INT8", largest=127, method="entropy", sm=75, since="Turing"),
    "fp8": Quantized("FP8", largest=448, method="minmax", sm=89, since="Ada"),
}

# Implementations of attention in PyTorch: see runtimes/attention.py.
ATTENTIONS = ("eager", "sdpa", "flash", "flex", "packed")

# TensorRT's hardware compatibility levels.
HARDWARE = ("none", "same-compute-capability", "ampere-plus")

# Scenarios of MLPerf.
SCENARIOS = ("single-stream", "offline", "server")
