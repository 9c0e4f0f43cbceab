"""The small types: loggers, sizes, weights, plugin fields, host memory, and the classes a user derives from."""

import ctypes as _ctypes
import sys as _sys

import numpy as _np

from ._enums import DataType as _DataType
from ._enums import Severity as _Severity
from ._enums import double_enums as _enums
from ._setup import Derivable as _Derivable
from ._setup import NoConstructor as _NoConstructor
from ._setup import need as _need
from ._setup import swallow as _swallow


def _of_name(name):
    return _DataType.__members__[name]


NUMPY = {
    _of_name("FLOAT"): _np.float32,
    _of_name("HALF"): _np.float16,
    _of_name("INT8"): _np.int8,
    _of_name("INT32"): _np.int32,
    _of_name("INT64"): _np.int64,
    _of_name("BOOL"): _np.bool_,
    _of_name("UINT8"): _np.uint8,
}


def nptype(trt_type):
    if trt_type in NUMPY:
        return NUMPY[trt_type]
    raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")


def volume(iterable):
    product = 1
    for item in iterable:
        product *= item
    return product


class ILogger(_Derivable):
    Severity = _Severity

    def log(self, severity, msg):
        raise RuntimeError('Tried to call pure virtual function "ILogger::log"')


for _name, _member in _Severity.__members__.items():
    setattr(ILogger, _name, _member)


class Logger(ILogger):
    def __init__(self, min_severity=_Severity.WARNING):
        super().__init__()
        self._min_severity = _need(min_severity, _Severity)

    @property
    def min_severity(self):
        return self._min_severity

    @min_severity.setter
    def min_severity(self, value):
        self._min_severity = _need(value, _Severity)

    def log(self, severity, msg):
        if severity.value <= self._min_severity.value:
            _sys.stderr.write(f"[TRT] [{severity.name[0]}] {msg}\n")


def say(logger, severity, text):
    """Hand a message to the user's logger; what it raises is printed and forgotten."""
    try:
        logger.log(_Severity.__members__[severity], text)
    except BaseException:
        _swallow("log")


class _Sizes:
    def __init__(self, sizes=()):
        self._sizes = tuple(int(size) for size in sizes)
        if len(self._sizes) > 8:
            raise ValueError("The input length exceeds the max expected length. Expected: <= 8")

    def __len__(self):
        return len(self._sizes)

    def __getitem__(self, index):
        found = self._sizes[index]
        return type(self)(found) if isinstance(index, slice) else found

    def __eq__(self, other):
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def __str__(self):
        return str(self._sizes)

    __repr__ = __str__


class Dims(_Sizes):
    MAX_DIMS = 8


class Permutation(_Sizes):
    pass


class Weights:
    def __init__(self, a=_DataType.FLOAT, ptr=None, count=0):
        if isinstance(a, _DataType):
            if ptr:
                raise TypeError("the double takes weights as numpy arrays")
            a = _np.empty(0, nptype(a))
        self._array = _np.ascontiguousarray(a)
        by_numpy = {_np.dtype(kind): name for name, kind in NUMPY.items()}
        self._type = by_numpy[self._array.dtype]

    dtype = property(lambda self: self._type)
    size = property(lambda self: self._array.size)
    nbytes = property(lambda self: self._array.nbytes)

    def numpy(self):
        return self._array.reshape(-1)

    def __len__(self):
        return self._array.size


class PluginField:
    def __init__(self, name="", data=None, type=None):  # noqa: A002
        self._name = name
        self._data = data
        self._type = type or _enums["PluginFieldType"].UNKNOWN

    name = property(lambda self: self._name, lambda self, value: setattr(self, "_name", value))
    data = property(lambda self: self._data, lambda self, value: setattr(self, "_data", value))
    type = property(lambda self: self._type, lambda self, value: setattr(self, "_type", value))

    @property
    def size(self):
        return 0 if self._data is None else _np.size(self._data)

    def _value(self):
        """What a plugin reads of the field: a number, or an array of several."""
        values = _np.asarray(self._data).reshape(-1)
        return values[0].item() if values.size == 1 else values


class PluginFieldCollection:
    def __init__(self, fields=()):
        self._fields = [_need(field, PluginField) for field in fields]

    def append(self, x):
        self._fields.append(_need(x, PluginField))

    def extend(self, fields):
        for field in fields:
            self.append(field)

    def insert(self, i, x):
        self._fields.insert(i, _need(x, PluginField))

    def pop(self, i=-1):
        return self._fields.pop(i)

    def clear(self):
        self._fields.clear()

    def __len__(self):
        return len(self._fields)

    def __getitem__(self, index):
        return self._fields[index]


class PluginFieldCollection_:  # noqa: N801
    def __init__(self, fields):
        self._fields = list(fields)

    def __len__(self):
        return len(self._fields)

    def __getitem__(self, index):
        return self._fields[index]


class IHostMemory(_NoConstructor):
    """Bytes of the library; memoryview() and bytes() take them."""

    @property
    def nbytes(self):
        return len(self)

    @property
    def dtype(self):
        return _DataType.INT8


def host_memory(data):
    """Bytes as host memory: an array of ctypes, because a class written in Python has no buffer before 3.12."""
    made = type("IHostMemory", (_ctypes.c_ubyte * len(data), IHostMemory), {"__init__": lambda self: None})
    return made.from_buffer_copy(data)
