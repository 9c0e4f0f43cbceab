"""The device of a run."""

import ctypes
import re

from toolchain.errors import MachineError, UsageError


def choose_device(asked: str, *, cuda: bool) -> str:
    """Return `cpu` or `cuda:N`. `auto` means the first GPU if `cuda`, which says whether the backend has one.

    Raises:
        UsageError: `asked` is not the name of a device.
        MachineError: `asked` is a GPU and the backend has none.
    """
    if asked == "auto":
        return "cuda:0" if cuda else "cpu"
    if asked == "cpu":
        return asked
    if not re.fullmatch(r"cuda(:\d+)?", asked):
        raise UsageError(f"--device {asked}: unknown. Choose auto, cpu or cuda[:N].")
    if not cuda:
        raise MachineError(f"--device {asked}: this backend can use no GPU here. See `toolchain doctor`.")
    return asked if ":" in asked else f"{asked}:0"


def has_cuda_gpu() -> bool:
    """Return whether the CUDA driver has a GPU that this process may use.

    Source: cuInit of cuda.h, which gives 0 unless there is no driver, no GPU, or none in CUDA_VISIBLE_DEVICES.
    """
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False
