"""The execution context: shapes, addresses, and a run."""

import ctypes as _ctypes
import time as _time

import numpy as _np

from . import _calibrate, _memory
from ._derive import IProfiler as _IProfiler
from ._setup import FAULTS as _FAULTS
from ._setup import NoConstructor as _NoConstructor
from ._setup import double_calls as _calls
from ._setup import need as _need
from ._setup import only_in_10 as _only_in_10
from ._types import Dims as _Dims
from ._types import nptype as _nptype
from ._types import say as _say


class IExecutionContext(_NoConstructor):
    engine = property(lambda self: self._engine)
    name = property(lambda self: self._name, lambda self, value: setattr(self, "_name", value))
    active_optimization_profile = property(lambda self: self._profile)
    enqueue_emits_profile = property(lambda self: True, lambda self, value: None)
    all_binding_shapes_specified = property(lambda self: not self.infer_shapes())
    all_shape_inputs_specified = property(lambda self: True)
    profiler = property(
        lambda self: self._profiler, lambda self, value: setattr(self, "_profiler", value and _need(value, _IProfiler))
    )

    def set_optimization_profile_async(self, profile_index, stream_handle):
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            return self._error("setOptimizationProfileAsync", f"there is no profile {profile_index}")
        _calls.append(("profile", profile_index))
        if profile_index != self._profile:
            self._shapes = self._fixed()
        self._profile = int(profile_index)
        return True

    def set_input_shape(self, name, shape):
        sizes = [int(size) for size in shape]
        if self._engine._io.get(name, {}).get("mode") != "INPUT":
            return self._error("setInputShape", f"{name} is no input")
        least, _, most = self._engine._header["profiles"][self._profile][name]
        if len(sizes) != len(least) or not all(a <= b <= c for a, b, c in zip(least, sizes, most, strict=True)):
            return self._error(
                "setInputShape",
                f"Set dimension {sizes} for tensor {name} does not satisfy any optimization profiles. "
                f"Valid range for profile {self._profile}: {least}..{most}.",
            )
        self._shapes[name] = sizes
        return True

    def get_tensor_shape(self, name):
        entry = self._engine._known(name)
        if entry.get("mode") == "INPUT":
            return _Dims(self._shapes.get(name, entry["shape"]))
        if self.infer_shapes() or -1 not in entry["shape"]:
            return _Dims(entry["shape"])
        known = {
            symbol: size
            for other, sizes in self._shapes.items()
            for symbol, size in zip(self._engine._io[other]["symbols"], sizes, strict=True)
            if symbol
        }
        found = [known.get(symbol, size) for symbol, size in zip(entry["symbols"], entry["shape"], strict=True)]
        return _Dims(self._tried().get(name, found) if -1 in found else found)

    def set_tensor_address(self, name, memory):
        if name not in self._engine._io:
            return self._error("setTensorAddress", f"there is no tensor {name}")
        if int(memory) % 256:
            return self._error("setTensorAddress", f"the address of {name} is no multiple of 256")
        self._addresses[name] = int(memory)
        return True

    def get_tensor_address(self, name):
        return self._addresses.get(name, 0)

    def infer_shapes(self):
        return [e["name"] for e in self._engine._io.values() if e["mode"] == "INPUT" and e["name"] not in self._shapes]

    def execute_async_v3(self, stream_handle):
        int(stream_handle)
        missing = self.infer_shapes() or [name for name in self._engine._io if not self._addresses.get(name)]
        if missing:
            return self._error("enqueueV3", f"neither shape nor address of {missing[0]} may be missing")
        if not self._workspace:
            return self._error("enqueueV3", "the context is USER_MANAGED, and set_device_memory() was not called")
        if "enqueue" in _FAULTS:
            return self._error("enqueueV3", "Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
        for name in self._engine._io:
            if not _memory.holds(self._addresses[name], self._nbytes(name)):
                return self._error("enqueueV3", f"the memory of {name} is less than {self._nbytes(name)} bytes")
        _calls.append(("execute", {name: tuple(sizes) for name, sizes in self._shapes.items()}))
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        _memory.submit(int(stream_handle), lambda: self._work(shapes, addresses))
        return True

    def report_to_profiler(self):
        return self._profiler is not None

    def set_device_memory(self, memory, size):
        if int(size) < self._engine.device_memory_size_v2 or not _memory.holds(int(memory), int(size)):
            self._error("setDeviceMemoryV2", f"{size} bytes are less than {self._engine.device_memory_size_v2}")
        else:
            self._workspace = True

    # The rest is for the double itself.

    def _fixed(self):
        return {
            entry["name"]: list(entry["shape"])
            for entry in self._engine._io.values()
            if entry["mode"] == "INPUT" and -1 not in entry["shape"]
        }

    def _nbytes(self, name):
        kind = _np.dtype(_nptype(self._engine.get_tensor_dtype(name)))
        return int(_np.prod(self.get_tensor_shape(name), dtype=_np.int64)) * kind.itemsize

    def _tried(self):
        """Shapes of the outputs by a run on ones; empty where the network takes no ones."""
        key = str(sorted(self._shapes.items()))
        if key not in self._known_shapes:
            feeds = {n: _np.ones(s, _nptype(self._engine.get_tensor_dtype(n))) for n, s in self._shapes.items()}
            try:
                found = self._engine._run(feeds)
            except Exception:  # whatever ONNX Runtime raises: the run itself then says what is wrong
                found = {}
            self._known_shapes[key] = {name: _np.shape(value) for name, value in found.items()}
        return self._known_shapes[key]

    def _work(self, shapes, addresses):
        """Read the inputs, compute, and write the outputs."""
        began = _time.perf_counter()
        engine = self._engine
        feeds = {n: _calibrate.read(addresses[n], engine.get_tensor_dtype(n), sizes) for n, sizes in shapes.items()}
        found = engine._run(feeds)
        for name, entry in engine._io.items():
            if entry["mode"] == "OUTPUT":
                value = _np.ascontiguousarray(found[name], _nptype(engine.get_tensor_dtype(name)))
                if "bad_logits" in _FAULTS and value.dtype.kind == "f":
                    value = _np.full_like(value, _np.nan)
                _ctypes.memmove(addresses[name], value.ctypes.data, value.nbytes)
        self._report(1000 * (_time.perf_counter() - began))

    def _report(self, milliseconds):
        """Spread the time over the layers."""
        layers = self._engine._header["layers"]
        for layer in layers if self._profiler is not None else ():
            self._profiler.report_layer_time(layer["Name"], milliseconds / len(layers))

    def _error(self, where, text):
        _say(self._engine._logger, "ERROR", f"IExecutionContext::{where}: Error Code 3: API Usage Error ({text})")
        return False


_only_in_10(IExecutionContext, "all_shape_inputs_specified")


def new_context(engine, strategy):
    made = IExecutionContext._made(_engine=engine, _name="", _profile=0, _addresses={}, _profiler=None)
    made._workspace = strategy != "USER_MANAGED"
    made._shapes, made._known_shapes = made._fixed(), {}
    return made
