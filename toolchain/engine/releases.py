"""The releases of TensorRT: one table with all that distinguishes their libraries.

Code that concerns engines takes the module of a release as its argument `trt`, and asks it for what it can do by name
(`hasattr`). What cannot be asked stands in `RELEASES`. Their APIs agree in nearly everything else.

trt      TensorRT 10 and 11. An engine is built on the GPU on which it runs.
trt-rtx  TensorRT-RTX. It compiles on any machine, for any of its targets, and chooses kernels when the plan is loaded.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from toolchain.errors import MachineError


@dataclass(frozen=True)
class Release:
    """What distinguishes one family of TensorRT libraries from the others."""

    # Its name in messages.
    name: str
    # The Python module of its bindings.
    module: str
    # Its part of a plan's tag: sm75-trt10.16.1.11, sm75-rtx1.7.1.116.
    mark: str
    # How to get it.
    install: str


RELEASES: dict[str, Release] = {
    "trt": Release(
        "TensorRT",
        "tensorrt",
        "trt",
        "pip install 'encoder-toolchain[cuda,tensorrt]' on a machine with an NVIDIA GPU; `toolchain doctor` shows more",
    ),
    "trt-rtx": Release(
        "TensorRT-RTX",
        "tensorrt_rtx_bindings",
        "rtx",
        "pip install 'encoder-toolchain[rtx]' on Linux x86-64; it needs no GPU to build",
    ),
}


def release_of(trt: Any) -> Release:
    """Return the release that a module belongs to."""
    return next(release for release in RELEASES.values() if release.module == trt.__name__)


def import_release(backend: str) -> Any:
    """Return the module of the release that a backend of RELEASES uses. Its plugins are not registered yet.

    Raises:
        MachineError: it is not installed, or its libraries cannot be loaded.
    """
    release = RELEASES[backend]
    try:
        return importlib.import_module(release.module)
    except (ImportError, OSError) as error:
        absent = getattr(error, "name", None) == release.module
        missing = "not installed" if absent else f"cannot be loaded ({error})"
        raise MachineError(f"{release.name}: {missing}. {release.install}.") from error
