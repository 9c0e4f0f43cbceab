"""What a test chose by environment variables, and the list of what the double was asked to do."""

import os as _os
import sys as _sys
import traceback as _traceback

VERSION = _os.environ.get("TRT_DOUBLE_VERSION", "10.16.1.11")
SM = _os.environ.get("TRT_DOUBLE_SM", "7.5")
FAULTS = frozenset(filter(None, _os.environ.get("TRT_DOUBLE_FAULT", "").split(",")))
MAJOR = int(VERSION.split(".")[0])
_parts = [int(part) for part in VERSION.split(".")]
VERSION_NUMBER = _parts[0] * (10000 if MAJOR >= 10 else 1000) + _parts[1] * 100 + _parts[2]

KNOWN_FAULTS = frozenset(
    {
        "parser",  # parser.parse() gives False and one error
        "none_plan",  # build_serialized_network() logs an error and gives None
        "oom",  # the same, and the error says that memory ran out
        "missing_scales",  # the build warns of tensors without a scale
        "no_int8",  # the inspector shows no INT8 layer
        "interrupt",  # KeyboardInterrupt in the middle of the build
        "cancel",  # the build ends half way with None, as when a progress monitor says stop
        "no_plugins",  # the registry knows no plugin
        "v2_plugins",  # the registry knows the old plugin ids only
        "enqueue",  # execute_async_v3() gives False
        "mem",  # pycuda: mem_alloc() raises MemoryError
        "bad_logits",  # every float output is NaN
    }
)
if FAULTS - KNOWN_FAULTS:
    raise ImportError(f"TRT_DOUBLE_FAULT: {sorted(FAULTS - KNOWN_FAULTS)} is none of {sorted(KNOWN_FAULTS)}")

double_calls = []
"""What happened, in order: ("parse", bytes), ("build", {...}), ("get_batch", n), ("execute", {name: shape}), ..."""


def only_in_10(owner, *names):
    """Take away what TensorRT 11 no longer has."""
    if MAJOR >= 11:
        for name in names:
            delattr(owner, name)


def only_in_11(owner, *names):
    if MAJOR < 11:
        for name in names:
            delattr(owner, name)


def complain(text):
    _sys.stderr.write(f"[ERROR] {text}\n")


def swallow(where):
    """Print the exception being handled and go on, as the bindings do with what a callback raises."""
    complain(f"Exception caught in {where}():\n{_traceback.format_exc()}")


class NoConstructor:
    """A class that only the library itself makes objects of; `_made(name=value)` is the library's way."""

    def __init__(self, *_args, **_kwargs):
        raise TypeError(f"tensorrt.{type(self).__name__}: No constructor defined!")

    @classmethod
    def _made(cls, **attributes):
        made = cls.__new__(cls)
        for name, value in attributes.items():
            setattr(made, name, value)
        return made


class _Checked(type):
    def __call__(cls, *args, **kwargs):
        made = super().__call__(*args, **kwargs)
        if not getattr(made, "_ready", False):
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made


class Derivable(metaclass=_Checked):
    """A class that a user derives from, whose own __init__ must then be called."""

    def __init__(self):
        self._ready = True


def need(value, kind):
    """Refuse a value of another type, as the bindings do."""
    if not isinstance(value, kind):
        raise TypeError(f"incompatible function arguments: {value!r} is no {kind.__name__}")
    return value


def buffer(data):
    """Bytes of anything with the buffer protocol."""
    return bytes(memoryview(data))
