"""The ONNX parser."""

import pathlib as _pathlib

import onnx as _onnx

from . import _graph
from ._config import IBuilderConfig as _IBuilderConfig
from ._enums import double_enums as _enums
from ._network import INetworkDefinition as _INetworkDefinition
from ._plugins import get_plugin_registry as _get_plugin_registry
from ._setup import FAULTS as _FAULTS
from ._setup import NoConstructor as _NoConstructor
from ._setup import buffer as _buffer
from ._setup import double_calls as _calls
from ._setup import need as _need
from ._types import ILogger as _ILogger
from ._types import say as _say

_OWN_DOMAINS = ("", "ai.onnx", _graph.PLUGINS)


class ParserError(_NoConstructor):
    def code(self):
        return _enums["ErrorCode"].__members__[self._code]

    def desc(self):
        return self._text

    def file(self):
        return "ModelImporter.cpp"

    def func(self):
        return "parseNode"

    def line(self):
        return 902

    def node(self):
        return self._index

    def node_name(self):
        return self._node.name if self._node is not None else ""

    def node_operator(self):
        return self._node.op_type if self._node is not None else ""

    def local_function_stack(self):
        return []

    def local_function_stack_size(self):
        return 0

    def __str__(self):
        return (
            f"In node {self._index} with name: {self.node_name()} and operator: {self.node_operator()} "
            f"(parseNode): {self._code}: {self._text}"
        )


class OnnxParser:
    def __init__(self, network, logger):
        self._network = _need(network, _INetworkDefinition)
        self._logger = _need(logger, _ILogger)
        self._errors = []
        self._flags = 1 << int(_enums["OnnxParserFlag"].NATIVE_INSTANCENORM)

    flags = property(lambda self: self._flags, lambda self, value: setattr(self, "_flags", int(value)))
    num_errors = property(lambda self: len(self._errors))

    def set_flag(self, flag):
        self._flags |= 1 << int(_need(flag, _enums["OnnxParserFlag"]))

    def clear_flag(self, flag):
        self._flags &= ~(1 << int(_need(flag, _enums["OnnxParserFlag"])))

    def get_flag(self, flag):
        return bool(self._flags >> int(flag) & 1)

    def set_builder_config(self, builder_config):
        return bool(_need(builder_config, _IBuilderConfig) is not None)

    def get_error(self, index):
        return self._errors[index]

    def clear_errors(self):
        self._errors.clear()

    def supports_operator(self, op_name):
        return _onnx.defs.has(op_name)

    def get_used_vc_plugin_libraries(self):
        return []

    def parse_from_file(self, model):
        try:
            data = _pathlib.Path(model).read_bytes()
        except OSError:
            return self._fail("MODEL_DESERIALIZE_FAILED", f"Failed to open file: {model}")
        return self.parse(data, model)

    def parse(self, model, path=None):
        data = _buffer(model)
        _calls.append(("parse", len(data)))
        if "parser" in _FAULTS:
            return self._fail("UNSUPPORTED_NODE", "the double was told to fail here")
        try:
            graph = _onnx.load_model_from_string(data)
            if path:
                _onnx.external_data_helper.load_external_data_for_model(graph, str(_pathlib.Path(path).parent))
        except Exception as error:
            return self._fail("MODEL_DESERIALIZE_FAILED", f"Failed to parse the ONNX model: {error}")
        if not graph.graph.node:
            return self._fail("INVALID_GRAPH", "the graph has no node")
        if not all(self._known(index, node) for index, node in enumerate(graph.graph.node)):
            return False
        self._network._model, self._network._value_infos = graph, None
        return True

    def supports_model_v2(self, model, path=None):
        return self.parse(model, path)

    def _known(self, index, node):
        if node.domain not in _OWN_DOMAINS:
            return self._fail("UNSUPPORTED_NODE", f"No importer registered for op: {node.op_type}", index, node)
        if node.domain != _graph.PLUGINS:
            return True
        given = {a.name: _onnx.helper.get_attribute_value(a) for a in node.attribute}
        version, space = (given.get(k, d).decode() for k, d in (("plugin_version", b"1"), ("plugin_namespace", b"")))
        if (node.op_type, version, space) not in _get_plugin_registry()._creators:
            text = f"Plugin not found, are the plugin name, version, and namespace correct? {node.op_type} {version}"
            return self._fail("UNSUPPORTED_NODE", text, index, node)
        return True

    def _fail(self, code, text, index=-1, node=None):
        self._errors.append(ParserError._made(_code=code, _text=text, _index=index, _node=node))
        _say(self._logger, "ERROR", str(self._errors[-1]))
        return False


def get_nv_onnx_parser_version():
    return 0
