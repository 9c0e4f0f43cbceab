"""Measure the ceiling of a device: the highest throughput of GEMMs in each precision, and of memory copies.

Each figure is the best of several rounds. A round runs all GEMMs and the copy once.
"""

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.base.processors import cpu_threads
from toolchain.base.progress import still
from toolchain.errors import MachineError, first_line
from toolchain.profile.roofline.kernel_speed import gemm_session
from toolchain.profile.roofline.work import Flop
from toolchain.runtimes.bandwidth import COPIED_BYTES, copying

# Device -> side of the square GEMMs, large enough to reach the ceiling and small enough to take a fraction of a second.
SIDES = {"cpu": 1024, "cuda": 8192}

# At least 1 round is run. A next round starts within LIMIT_S seconds while there are fewer than ROUNDS, and after that
# within BUDGET_S seconds.
BUDGET_S, LIMIT_S, ROUNDS = 1.0, 2.0, 3

# Precision -> the precision in which a device computes if it has no units for the first.
FALL_BACK = {"tf32": "fp32"}

# Runs the work to time once, and returns when the device has finished it.
Action = Callable[[], object]


@dataclass(frozen=True)
class Ceiling:
    """The ceiling of a device: operations/s by precision, and memory bandwidth in bytes/s."""

    flop_per_s: dict[str, float]
    bytes_per_s: float

    def lacks(self, precisions: Iterable[str]) -> list[str]:
        """Return those of `precisions` in which the device cannot compute. TF32 counts as possible if FP32 is."""
        return [name for name in precisions if FALL_BACK.get(name, name) not in self.flop_per_s]

    def compute_s(self, flop: Flop) -> float:
        """Return the shortest time for these operations in seconds; precisions run one after the other."""
        speed = {name: self.flop_per_s.get(name) or self.flop_per_s[FALL_BACK[name]] for name in flop}
        return sum(amount / speed[precision] for precision, amount in flop.items())

    def memory_s(self, moved_bytes: float) -> float:
        """Return the shortest time for this memory traffic, in seconds."""
        return moved_bytes / self.bytes_per_s


@functools.cache
def measure(device: str, precisions: frozenset[str]) -> Ceiling:
    """Measure the ceiling of `cpu` or `cuda:N` in the given precisions; a process measures each device only once.

    An operation is a multiplication or an addition; a copy reads and writes each byte. Integer GEMMs are uint8 x int8
    in ONNX Runtime on a CPU, which are the fastest available, and int8 x int8 in PyTorch on a GPU.

    Raises:
        MachineError: PyTorch has no CUDA, or the device has no GEMM of a precision.
    """
    kind = device.partition(":")[0]
    try:
        actions = _on_cpu(precisions) if kind == "cpu" else _on_cuda(device, precisions)
        with still():
            best = best_of(actions)
    except (RuntimeError, AssertionError) as error:  # PyTorch raises these without a GPU, a kernel or memory
        why = first_line(error).rstrip(".")
        raise MachineError(
            f"--device {device}: the ceiling of this device cannot be measured: {why}. Run `toolchain doctor`."
        ) from error
    copied = 2 * COPIED_BYTES[kind] / best.pop("copy")
    return Ceiling({name: 2 * SIDES[kind] ** 3 / seconds for name, seconds in best.items()}, copied)


def best_of(actions: dict[str, Action], *, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Return the shortest time of each action in seconds.

    Every round runs each action once, so that a short disturbance affects only one time of an action.
    """
    best = dict.fromkeys(actions, float("inf"))
    begun, rounds = clock(), 0
    while not rounds or clock() - begun < (LIMIT_S if rounds < ROUNDS else BUDGET_S):
        for name, action in actions.items():
            start = clock()
            action()
            best[name] = min(best[name], clock() - start)
        rounds += 1
    return best


def _on_cpu(precisions: frozenset[str]) -> dict[str, Action]:
    import torch

    torch.set_num_threads(cpu_threads())
    side = SIDES["cpu"]
    types = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    actions: dict[str, Action] = {"copy": _copy(torch.device("cpu"))}
    for name in precisions & types.keys():
        actions[name] = functools.partial(torch.mm, *torch.rand(2, side, side).to(types[name]))
    if "int8" in precisions:
        left, right = np.random.default_rng(0).integers(0, 127, (2, side, side))
        session = gemm_session("MatMulInteger", right.astype(np.int8))
        actions["int8"] = functools.partial(session.run, None, {"left": left.astype(np.uint8)})
    return actions


def _on_cuda(device: str, precisions: frozenset[str]) -> dict[str, Action]:
    import torch

    place, side = torch.device(device), SIDES["cuda"]
    types = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

    def idle(action: Action) -> Action:
        def run() -> None:
            action()
            torch.cuda.synchronize(place)

        return run

    actions = {"copy": idle(_copy(place))}
    for name in precisions & types.keys():
        gemm = functools.partial(torch.mm, *torch.rand(2, side, side, device=place).to(types[name]))
        actions[name] = idle(_typed(gemm, "tf32" if name == "tf32" else "ieee"))
    if "int8" in precisions:
        left, right = torch.randint(-127, 127, (2, side, side), dtype=torch.int8, device=place)
        # The kernels need a column-major right matrix.
        actions["int8"] = idle(functools.partial(torch._int_mm, left, right.t()))
    return actions


def _typed(gemm: Action, precision: str) -> Action:
    """Return an action that runs `gemm` with PyTorch's `fp32_precision` of matrix products set to `precision`."""
    import torch

    def run() -> None:
        setting: Any = torch.backends.cuda.matmul
        before, setting.fp32_precision = setting.fp32_precision, precision
        try:
            gemm()
        finally:
            setting.fp32_precision = before

    return run


def _copy(place: Any) -> Action:
    """Return an action that copies COPIED_BYTES within the memory of a device."""
    import torch

    return copying(torch.ones(COPIED_BYTES[place.type] // 4, device=place))
