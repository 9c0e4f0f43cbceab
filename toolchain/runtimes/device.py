"""The choice of the device of a run: `cpu` or `cuda:N`."""

import ctypes
import re

from toolchain.errors import MachineError, UsageError


def choose_device(asked: str, *, cuda: bool) -> str:
    """Return the device that `asked` names, as `cpu` or `cuda:N`.

    `cuda` says whether the backend can use a GPU on this machine. `auto` means the first GPU if so, otherwise the CPU.

    Raises:
        UsageError: `asked` is not the name of a device.
        MachineError: `asked` is a GPU, and the backend cannot use one.
    """
    if asked == "auto":
        return "cuda:0" if cuda else "cpu"
    if asked == "cpu":
        return asked
    if not re.fullmatch(r"cuda(:\d+)?", asked):
        raise UsageError(f"--device {asked}: unknown. Choose auto, cpu or cuda[:N].")
    if not cuda:
        raise MachineError(f"--device {asked}: this backend cannot use a GPU here. Run `toolchain doctor` to see why.")
    return asked if ":" in asked else f"{asked}:0"


def has_cuda_gpu() -> bool:
    """Return whether the CUDA driver finds a GPU that this process may use.

    Source: cuInit of cuda.h, which returns an error without a driver, without a GPU, or if CUDA_VISIBLE_DEVICES hides
    every GPU.
    """
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False
