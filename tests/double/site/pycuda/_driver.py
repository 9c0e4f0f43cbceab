"""The errors, the device and the contexts; pycuda.driver has them all."""

import builtins as _builtins
import os as _os
import threading as _threading

TOTAL = 15 << 30
STREAMS = {}
_local = _threading.local()
_state = {"ready": False}

double_calls = []
"""What happened: ("mem_alloc", bytes), ("free", bytes), ("htod", bytes), ("dtoh", bytes), ("synchronize",)."""


class Error(Exception):
    pass


class MemoryError(Error):  # noqa: A001
    pass


class LogicError(Error):
    pass


class LaunchError(Error):
    pass


class RuntimeError(Error):  # noqa: A001
    pass


def init(flags=0):
    _state["ready"] = True


def get_version():
    return (12, 9, 0)


def get_driver_version():
    return 12090


def _stack():
    if not hasattr(_local, "contexts"):
        _local.contexts = []
    return _local.contexts


def need_context():
    if not _stack():
        raise LogicError("explicit_context_dependent failed: invalid device context - no currently active context?")


class Device:
    def __init__(self, ordinal):
        if not _state["ready"]:
            raise LogicError("cuDeviceGet failed: initialization error")
        if ordinal != 0:
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

    @staticmethod
    def count():
        if not _state["ready"]:
            raise LogicError("cuDeviceGetCount failed: initialization error")
        return 1

    def name(self):
        return _os.environ.get("TRT_DOUBLE_GPU", "Tesla T4")

    def compute_capability(self):
        return tuple(int(part) for part in _os.environ.get("TRT_DOUBLE_SM", "7.5").split("."))

    def total_memory(self):
        return TOTAL

    def pci_bus_id(self):
        return "0000:00:04.0"

    def retain_primary_context(self):
        """Give the context, which is not current before its push()."""
        return Context.__new__(Context)

    def make_context(self, flags=0):
        made = Context.__new__(Context)
        made.push()
        return made


class Context:
    """A context; each thread has its own stack of them."""

    def __init__(self):
        raise _builtins.RuntimeError("This class cannot be instantiated from Python")

    def push(self):
        _stack().append(self)

    @staticmethod
    def pop():
        need_context()
        _stack().pop()

    def detach(self):
        if getattr(self, "_detached", False):
            raise LogicError("context::detach failed: invalid device context - cannot detach from invalid context")
        self._detached = True
        if self in _stack():
            _stack().remove(self)

    @staticmethod
    def get_current():
        return _stack()[-1] if _stack() else None

    @staticmethod
    def get_device():
        need_context()
        return Device(0)

    @staticmethod
    def synchronize():
        need_context()
        double_calls.append(("synchronize",))
        for stream in list(STREAMS.values()):
            stream._finish()
