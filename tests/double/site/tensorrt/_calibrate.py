"""The calibrators of TensorRT 10, and how the builder drives one."""

import ctypes as _ctypes
import struct as _struct

import numpy as _np

from . import _memory
from ._enums import double_enums as _enums
from ._setup import VERSION_NUMBER as _VERSION_NUMBER
from ._setup import Derivable as _Derivable
from ._setup import buffer as _buffer
from ._setup import complain as _complain
from ._setup import double_calls as _calls
from ._setup import swallow as _swallow
from ._types import nptype as _nptype


class IInt8Calibrator(_Derivable):
    def get_batch_size(self):
        raise RuntimeError('Tried to call pure virtual function "IInt8Calibrator::getBatchSize"')

    def get_batch(self, names):
        raise RuntimeError('Tried to call pure virtual function "IInt8Calibrator::getBatch"')

    def read_calibration_cache(self):
        raise RuntimeError('Tried to call pure virtual function "IInt8Calibrator::readCalibrationCache"')

    def write_calibration_cache(self, cache):
        raise RuntimeError('Tried to call pure virtual function "IInt8Calibrator::writeCalibrationCache"')

    def get_algorithm(self):
        raise RuntimeError('Tried to call pure virtual function "IInt8Calibrator::getAlgorithm"')


class IInt8EntropyCalibrator2(IInt8Calibrator):
    def get_algorithm(self):
        return _enums["CalibrationAlgoType"].ENTROPY_CALIBRATION_2


class IInt8MinMaxCalibrator(IInt8Calibrator):
    def get_algorithm(self):
        return _enums["CalibrationAlgoType"].MINMAX_CALIBRATION


_WORDS = {"ENTROPY_CALIBRATION_2": "EntropyCalibration2", "MINMAX_CALIBRATION": "MinMaxCalibration"}


def _header(calibrator):
    return f"TRT-{_VERSION_NUMBER}-{_WORDS[calibrator.get_algorithm().name]}"


def _guarded(method, *args):
    """Call a user's method; what it raises is printed and counts as None."""
    try:
        return method(*args)
    except BaseException:
        _swallow(method.__name__)
        return None


def calibrate(calibrator, inputs, measure):
    """Return the scale of each tensor, from the calibrator's cache or from its batches.

    Args:
        calibrator: the user's.
        inputs: name -> (data type, shape) of the network's inputs, at the shape to calibrate with.
        measure: from {input: array} to {tensor: array} for every tensor that can have a scale.
    """
    head = _header(calibrator)
    held = _read(calibrator, head)
    if held is not None:
        return held
    amax = _amax(calibrator, inputs, measure)
    lines = [f"{name}: {_struct.pack('>f', value / 127).hex()}" for name, value in amax.items()]
    _calls.append(("write_calibration_cache", len(lines)))
    _guarded(calibrator.write_calibration_cache, memoryview("\n".join([head, *lines, ""]).encode()))
    return {name: value / 127 for name, value in amax.items()}


def _read(calibrator, head):
    cache = _guarded(calibrator.read_calibration_cache)
    try:
        text = None if cache is None else _buffer(cache).decode()
    except TypeError:  # a str, say: an error on the console, and no cache
        _swallow("read_calibration_cache")
        text = None
    _calls.append(("read_calibration_cache", 0 if text is None else len(text)))
    if not text or text.split("\n")[0].strip() != head:
        return None  # another version's or algorithm's cache is skipped without a word
    pairs = [line.rsplit(": ", 1) for line in text.split("\n")[1:] if line]
    return {name: _struct.unpack(">f", bytes.fromhex(word.strip()))[0] for name, word in pairs}


def _amax(calibrator, inputs, measure):
    _guarded(calibrator.get_batch_size)
    amax, batches = {}, 0
    while (feeds := _batch(calibrator, inputs)) is not None:
        batches += 1
        for name, value in measure(feeds).items():
            amax[name] = max(amax.get(name, 0.0), float(_np.abs(value).max(initial=0)))
    _calls.append(("get_batch", batches))
    return amax


def _batch(calibrator, inputs):
    """The arrays behind the pointers of one batch, each of exactly the shape to calibrate with."""
    pointers = _guarded(calibrator.get_batch, list(inputs))
    if pointers is None or len(pointers) == 0:
        return None
    if any(isinstance(p, bool) or not hasattr(p, "__index__") or int(p) < 0 for p in pointers):
        _complain(f"Unable to cast {pointers!r} to device pointers")
        return None  # end of data, as after an exception
    if len(pointers) != len(inputs):
        raise AssertionError(f"get_batch gave {len(pointers)} pointers for {len(inputs)} inputs: TensorRT would crash")
    return {name: read(int(p), *inputs[name]) for p, name in zip(pointers, inputs, strict=True)}


def read(address, dtype, shape):
    """Copy an array from an address; a buffer that pycuda's double knows to be too small is an error."""
    kind = _np.dtype(_nptype(dtype))
    nbytes = int(_np.prod(shape, dtype=_np.int64)) * kind.itemsize
    if not _memory.holds(address, nbytes):
        raise AssertionError(f"{nbytes} bytes are read at {address:#x}, where fewer are allocated: a GPU would fault")
    return _np.frombuffer(_ctypes.string_at(address, nbytes), kind).reshape(tuple(shape))
