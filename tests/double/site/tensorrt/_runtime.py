"""The runtime, the engine, and its inspector."""

import json as _json

import onnx as _onnx

from . import _graph, _plan, _written
from ._context import new_context as _new_context
from ._enums import DataType as _DataType
from ._enums import double_enums as _enums
from ._plugins import get_plugin_registry as _get_plugin_registry
from ._setup import NoConstructor as _NoConstructor
from ._setup import buffer as _buffer
from ._setup import double_calls as _calls
from ._setup import need as _need
from ._setup import only_in_10 as _only_in_10
from ._types import Dims as _Dims
from ._types import ILogger as _ILogger
from ._types import host_memory as _host_memory
from ._types import say as _say


class Runtime:
    def __init__(self, logger):
        self._logger = _need(logger, _ILogger)
        self._host_code = False

    logger = property(lambda self: self._logger)
    num_DLA_cores = property(lambda self: 0)  # noqa: N815
    engine_host_code_allowed = property(
        lambda self: self._host_code, lambda self, value: setattr(self, "_host_code", bool(value))
    )

    def get_plugin_registry(self):
        return _get_plugin_registry()

    def deserialize_cuda_engine(self, serialized_engine):
        if isinstance(serialized_engine, str):
            raise TypeError("deserialize_cuda_engine(): incompatible function arguments: a str is no buffer")
        data = _buffer(serialized_engine)
        _calls.append(("deserialize", len(data)))
        found = _plan.unpack(data, self._logger, self._host_code)
        if found is None:
            return None
        header, graph = found
        if not _plugins_there(header, graph):
            _say(
                self._logger,
                "ERROR",
                "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Cannot find "
                "plugin in the registry, are the plugin name, version, and namespace correct?)",
            )
            return None
        io = {entry["name"]: entry for entry in header["io"]}
        return ICudaEngine._made(_header=header, _graph=graph, _io=io, _logger=self._logger, _runs=None, _plan=data)


def _plugins_there(header, graph):
    if header["kind"] != "onnx":
        return True
    registry = _get_plugin_registry()
    names = {name for name, _, _ in registry._creators}
    nodes = _onnx.load_model_from_string(graph).graph.node
    return all(node.op_type in names for node in nodes if node.domain == _graph.PLUGINS)


class ICudaEngine(_NoConstructor):
    name = property(lambda self: self._header["name"])
    num_io_tensors = property(lambda self: len(self._io))
    num_layers = property(lambda self: len(self._header["layers"]))
    num_optimization_profiles = property(lambda self: len(self._header["profiles"]))
    num_aux_streams = property(lambda self: 0)
    refittable = property(lambda self: self._header["refittable"])
    device_memory_size_v2 = property(lambda self: 1 << 20)
    device_memory_size = property(lambda self: 1 << 20)
    streamable_weights_size = property(lambda self: 0)
    has_implicit_batch_dimension = property(lambda self: False)
    engine_capability = property(lambda self: _enums["EngineCapability"].STANDARD)
    profiling_verbosity = property(lambda self: self._member("ProfilingVerbosity", "verbosity"))
    hardware_compatibility_level = property(lambda self: self._member("HardwareCompatibilityLevel", "hardware"))

    def get_tensor_name(self, index):
        return list(self._io)[index]

    def get_tensor_mode(self, name):
        return _enums["TensorIOMode"].__members__[self._io[name]["mode"] if name in self._io else "NONE"]

    def get_tensor_dtype(self, name):
        return _DataType.__members__[self._known(name)["dtype"]]

    def get_tensor_shape(self, name):
        return _Dims(self._known(name)["shape"])

    def get_tensor_location(self, name):
        return _enums["TensorLocation"].DEVICE

    def get_tensor_format(self, name, profile_index=0):
        return _enums["TensorFormat"].LINEAR

    def get_tensor_format_desc(self, name, profile_index=0):
        return f"Row major linear {self.get_tensor_dtype(name).name} format"

    def get_tensor_profile_shape(self, name, profile_index):
        return [_Dims(sizes) for sizes in self._header["profiles"][profile_index][name]]

    def get_device_memory_size_for_profile_v2(self, profile_index):
        return 1 << 20

    def get_engine_stat(self, stat=_enums["EngineStat"].TOTAL_WEIGHTS_SIZE):
        return len(self._graph)

    def is_shape_inference_io(self, name):
        return False

    def serialize(self):
        return _host_memory(self._plan)

    def create_execution_context(self, strategy=None):
        _calls.append(("create_context",))
        return _new_context(self, getattr(strategy, "name", "STATIC"))

    def create_engine_inspector(self):
        return EngineInspector._made(_engine=self, _context=None)

    def _member(self, kind, key):
        return _enums[kind].__members__[self._header[key]]

    def _known(self, name):
        if name not in self._io:
            _say(self._logger, "ERROR", f"ICudaEngine: Error Code 3: API Usage Error (tensor {name} does not exist)")
            return {"dtype": "FLOAT", "shape": [-1]}
        return self._io[name]

    def _run(self, feeds):
        """What the network computes; the session is made on first use."""
        if self._runs is None:
            if self._header["kind"] == "written":
                self._runs = _written.unpack(self._graph).evaluate
            else:
                self._runs = _graph.runner(_onnx.load_model_from_string(self._graph))
        return self._runs(feeds)


_only_in_10(ICudaEngine, "device_memory_size", "has_implicit_batch_dimension")


def _untold(layer):
    """Return a layer as it is told without a context that has its shapes."""
    ports = {
        key: [one | {"Format/Datatype": "N/A due to dynamic shapes"} for one in layer[key]]
        for key in ("Inputs", "Outputs")
        if key in layer
    }
    return layer | ports


class EngineInspector(_NoConstructor):
    execution_context = property(lambda self: self._context, lambda self, value: setattr(self, "_context", value))

    def get_engine_information(self, format):  # noqa: A002
        layers = self._layers()
        if _need(format, _enums["LayerInformationFormat"]).name == "ONELINE":
            return "\n".join(layer if isinstance(layer, str) else layer["Name"] for layer in layers)
        return _json.dumps({"Layers": layers, "Bindings": list(self._engine._io)}, indent=1)

    def get_layer_information(self, layer_index, format):  # noqa: A002
        return _json.dumps(self._layers()[layer_index])

    def _layers(self):
        """All about each layer, or as much as the build was told to keep."""
        layers = self._engine._header["layers"]
        kept = self._engine._header["verbosity"]
        varies = any(-1 in entry["shape"] for entry in self._engine._io.values())
        if varies and (self._context is None or self._context.infer_shapes()):
            layers = [_untold(layer) for layer in layers]
        return layers if kept == "DETAILED" else [layer["Name"] for layer in layers if kept == "LAYER_NAMES_ONLY"]
