"""The driver's calls, with a GPU's memory in the memory of the process.

TRT_DOUBLE_STREAMS=lazy makes what is put on a stream wait for a synchronisation, as a GPU may: a test
in that mode finds a missing one.
"""

import builtins as _builtins
import ctypes as _ctypes
import itertools as _itertools
import os as _os
import time as _time

import numpy as _np

from . import _driver
from ._driver import (
    Context,
    Device,
    Error,
    LaunchError,
    LogicError,
    double_calls,
    get_driver_version,
    get_version,
    init,
)
from ._driver import need_context as _need_context

__all__ = [
    "Context",
    "Device",
    "DeviceAllocation",
    "Error",
    "Event",
    "LaunchError",
    "LogicError",
    "MemoryError",
    "RuntimeError",
    "Stream",
    "double_calls",
    "get_driver_version",
    "get_version",
    "init",
    "mem_alloc",
    "mem_get_info",
    "memcpy_dtoh",
    "memcpy_dtoh_async",
    "memcpy_htod",
    "memcpy_htod_async",
    "memset_d8",
    "pagelocked_empty",
]

_faults = _os.environ.get("TRT_DOUBLE_FAULT", "").split(",")
_lazy = _os.environ.get("TRT_DOUBLE_STREAMS") == "lazy"
MemoryError = _driver.MemoryError  # noqa: A001
RuntimeError = _driver.RuntimeError  # noqa: A001

_handles = _itertools.count(0x5000)
_allocations = {}


class DeviceAllocation:
    """Host memory at a multiple of 256, as a GPU's is."""

    def __init__(self):
        raise _builtins.RuntimeError("This class cannot be instantiated from Python")

    def __int__(self):
        if self._memory is None:
            raise LogicError("device_allocation::free failed: invalid resource handle")
        return self._address

    __index__ = __int__

    def free(self):
        if self._memory is None:
            raise LogicError("device_allocation::free failed: invalid resource handle")
        del _allocations[self._address]
        double_calls.append(("free", self._nbytes))
        self._memory = None

    def __del__(self):
        if getattr(self, "_memory", None) is not None and _allocations is not None:
            self.free()


def mem_alloc(nbytes):
    _need_context()
    if "mem" in _faults or nbytes > mem_get_info()[0]:
        raise MemoryError("cuMemAlloc failed: out of memory")
    if nbytes <= 0:
        raise LogicError("cuMemAlloc failed: invalid argument")
    made = DeviceAllocation.__new__(DeviceAllocation)
    made._memory = _np.full(int(nbytes) + 256, 0xA5, _np.uint8)  # what is read before it is written looks wrong
    made._nbytes = int(nbytes)
    made._address = -(-made._memory.ctypes.data // 256) * 256
    _allocations[made._address] = made._nbytes
    double_calls.append(("mem_alloc", made._nbytes))
    return made


def mem_get_info():
    _need_context()
    return _driver.TOTAL - double_allocated(), _driver.TOTAL


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    _need_context()
    return _np.empty(shape, dtype, order)


class Stream:
    def __init__(self, flags=0):
        _need_context()
        self._handle = next(_handles)
        self._waiting = []
        _driver.STREAMS[self._handle] = self

    handle = property(lambda self: self._handle)

    def synchronize(self):
        double_calls.append(("synchronize",))
        self._finish()

    def is_done(self):
        return not self._waiting

    def wait_for_event(self, event):
        event.synchronize()

    def _finish(self):
        waiting, self._waiting = self._waiting, []
        for work in waiting:
            work()


class Event:
    def __init__(self, flags=0):
        _need_context()
        self._when = None

    def record(self, stream=None):
        _submit(stream, lambda: setattr(self, "_when", _time.perf_counter()))
        return self

    def synchronize(self):
        for stream in list(_driver.STREAMS.values()):
            stream._finish()
        return self

    def query(self):
        return self._when is not None

    def time_till(self, end):
        """Milliseconds from this event to the other."""
        if self._when is None or end._when is None:
            raise LogicError("cuEventElapsedTime failed: invalid resource handle")
        return 1000 * (end._when - self._when)

    def time_since(self, start):
        return start.time_till(self)


def _submit(stream, work):
    if stream is None or not _lazy:
        work()
    else:
        stream._waiting.append(work)


def _copy(destination, source, nbytes, device, word):
    """Copy, after a check that the device's side is large enough."""
    if not double_holds(device, nbytes):
        raise LogicError(f"cuMemcpy{word} failed: invalid argument")
    _ctypes.memmove(destination, source, nbytes)
    double_calls.append((word.lower(), nbytes))


def _array(host, writable=False):
    """Look at a host buffer as an array; one with gaps is refused, as by the real one."""
    view = memoryview(host)
    if not view.c_contiguous:
        raise ValueError("ndarray is not C-contiguous")
    if writable and view.readonly:
        raise BufferError("Object is not writable.")
    return _np.frombuffer(view, _np.uint8) if view.nbytes else _np.empty(0, _np.uint8)


def memcpy_htod_async(dest, src, stream=None):
    _need_context()
    host, address = _array(src), int(dest)
    _submit(stream, lambda: _copy(address, host.ctypes.data, host.nbytes, address, "HtoD"))


def memcpy_dtoh_async(dest, src, stream=None):
    _need_context()
    host, address = _array(dest, writable=True), int(src)
    _submit(stream, lambda: _copy(host.ctypes.data, address, host.nbytes, address, "DtoH"))


def memcpy_htod(dest, src):
    memcpy_htod_async(dest, src)


def memcpy_dtoh(dest, src):
    memcpy_dtoh_async(dest, src)


def memset_d8(dest, data, size):
    _need_context()
    _ctypes.memset(int(dest), data, size)


def double_allocated():
    """Bytes allocated now; what is not 0 at the end was never freed."""
    return sum(_allocations.values())


def double_holds(address, nbytes):
    """Whether so many bytes may be touched there; of an address that is in no allocation nothing is known."""
    for start, size in list(_allocations.items()):
        if start <= address < start + size:
            return address + nbytes <= start + size
    return True


def double_submit(handle, work):
    """Put work on the stream of a handle."""
    _submit(_driver.STREAMS.get(handle), work)
