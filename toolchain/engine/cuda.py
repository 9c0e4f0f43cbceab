"""Uses a GPU through PyCUDA: its primary context (which torch may share), memory, streams, and CUDA graphs.

PyCUDA wraps every part of the driver that is needed except CUDA graphs. For these, six functions of libcuda are called
directly (cuda.h, CUDA 12). `compute_capability` also calls libcuda, so that it works without PyCUDA.
"""

import ctypes
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolchain.base.tensors import Array
from toolchain.errors import MachineError

# CU_STREAM_CAPTURE_MODE_THREAD_LOCAL in cuda.h: CUDA calls of other threads do not invalidate the capture.
THREAD_LOCAL = 1

# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR in cuda.h.
CAPABILITY = (75, 76)


def import_pycuda() -> Any:
    """Return the module pycuda.driver, initialised.

    Raises:
        MachineError: PyCUDA is not installed, or the machine lacks a driver or a GPU.
    """
    try:
        driver = importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise MachineError(
            f"PyCUDA: the package or CUDA is not installed ({error}). Install CUDA's headers, then run "
            "pip install 'encoder-toolchain[tensorrt]'."
        ) from error
    try:
        driver.init()
        count = driver.Device.count()
    except driver.Error as error:
        raise MachineError(f"CUDA: no GPU can be used ({error}). Run `toolchain doctor` to find out why.") from error
    if count == 0:
        raise MachineError("CUDA: no GPU is visible. Check CUDA_VISIBLE_DEVICES, and run `toolchain doctor`.")
    return driver


@dataclass(frozen=True)
class Gpu:
    """One GPU whose primary context is current in this thread.

    `driver` is the module pycuda.driver, `sm` the compute capability as one number (75 is 7.5), `total_mb` its memory
    in MiB, `cuda` the CUDA version that the driver supports, such as 12.4.
    """

    driver: Any
    name: str
    sm: int
    total_mb: int
    cuda: str

    def stream(self) -> Any:
        """Return a new stream."""
        return self.driver.Stream()

    def buffer(self, nbytes: int) -> Any:
        """Allocate `nbytes` bytes of device memory, which is freed with the returned object.

        Raises:
            MachineError: the GPU has too little free memory.
        """
        try:
            return self.driver.mem_alloc(max(1, nbytes))
        except self.driver.MemoryError as error:
            raise MachineError(
                f"{self.name}: out of memory: {nbytes / 1e6:.0f} MB could not be allocated on the GPU. "
                "Build for a smaller --batch-size, or free GPU memory."
            ) from error

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return an array in page-locked host memory, so that copies can run while the GPU computes.

        Raises:
            MachineError: the host has too little free memory.
        """
        try:
            array: Array = self.driver.pagelocked_empty(shape, dtype)
        except self.driver.MemoryError as error:
            raise MachineError(
                f"{self.name}: out of memory: {nbytes(shape, dtype) / 1e6:.0f} MB of page-locked host memory could "
                "not be allocated. Build for a smaller --batch-size."
            ) from error
        return array

    def upload(self, target: Any, source: Array, stream: Any) -> None:
        """Enqueue a copy from a contiguous array to device memory."""
        self.driver.memcpy_htod_async(target, source, stream)

    def download(self, target: Array, source: Any, stream: Any) -> None:
        """Enqueue a copy from device memory to a contiguous array."""
        self.driver.memcpy_dtoh_async(target, source, stream)


@contextmanager
def open_gpu(device: str = "cuda:0") -> Iterator[Gpu]:
    """Make the primary context of a GPU current in the `with` block, and release the context after it.

    Raises:
        MachineError: the machine lacks this GPU.
    """
    driver = import_pycuda()
    index = int(device.partition(":")[2] or 0)
    if index >= driver.Device.count():
        raise MachineError(
            f"--device {device}: this machine has {driver.Device.count()} GPUs, numbered from 0. Choose another GPU."
        )
    found = driver.Device(index)
    major, minor = found.compute_capability()
    version = driver.get_driver_version()
    context = found.retain_primary_context()
    context.push()
    try:
        yield Gpu(
            driver,
            found.name(),
            major * 10 + minor,
            found.total_memory() // 2**20,
            f"{version // 1000}.{version % 1000 // 10}",
        )
    finally:
        context.pop()


class CudaGraph:
    """A CUDA graph: the work of one stream, captured once and replayed with one call."""

    def __init__(self, stream: Any, work: Callable[[], None]) -> None:
        """Capture the work that `work` enqueues on `stream`.

        `work` must have run once before, so that it allocates nothing during the capture.

        Raises:
            MachineError: the driver refuses to capture or to instantiate the graph.
        """
        self._library = driver_library()
        self._stream = ctypes.c_void_p(stream.handle)
        captured, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, ctypes.c_int(THREAD_LOCAL))
        try:
            work()
        except BaseException:
            # An error of this call is ignored, because the first error is raised.
            self._library.cuStreamEndCapture(self._stream, ctypes.byref(captured))
            raise
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(captured))
        try:
            flags = ctypes.c_ulonglong(0)
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), captured, flags)
        finally:
            self._call("cuGraphDestroy", captured)

    def launch(self) -> None:
        """Enqueue the captured work on its stream."""
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free the graph."""
        self._call("cuGraphExecDestroy", self._executable)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise MachineError(f"CUDA graph: {name} fails with CUresult {status}. Run without --cuda-graphs.")


def compute_capability(device: str = "cuda:0") -> int | None:
    """Return the compute capability of a GPU, times ten, from the driver; None if the driver does not state it."""
    try:
        library = driver_library()
    except MachineError:
        return None
    number, found = ctypes.c_int(), [ctypes.c_int() for _ in CAPABILITY]
    calls = [library.cuInit(0), library.cuDeviceGet(ctypes.byref(number), int(device.partition(":")[2] or 0))]
    calls += [
        library.cuDeviceGetAttribute(ctypes.byref(one), attribute, number)
        for one, attribute in zip(found, CAPABILITY, strict=True)
    ]
    return None if any(calls) else 10 * found[0].value + found[1].value


def driver_library() -> Any:
    """Load and return libcuda, the library of the CUDA driver.

    Raises:
        MachineError: the library cannot be loaded.
    """
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise MachineError(f"CUDA graph: libcuda cannot be loaded ({error}). Run without --cuda-graphs.") from error


def nbytes(shape: tuple[int, ...], dtype: Any) -> int:
    """Return the size of a contiguous array, in bytes."""
    return int(np.prod(shape, dtype=np.int64)) * int(np.dtype(dtype).itemsize)
