"""Networks: what the parser made of an ONNX graph, or what was written through the network API."""

from . import _graph, _written
from ._enums import DataType as _DataType
from ._enums import double_enums as _enums
from ._setup import MAJOR as _MAJOR
from ._setup import NoConstructor as _NoConstructor
from ._setup import need as _need
from ._setup import only_in_10 as _only_in_10
from ._types import Dims as _Dims

_LAYERS = {
    "QUANTIZE": "QuantizeLinear",
    "DEQUANTIZE": "DequantizeLinear",
    "MATRIX_MULTIPLY": "MatMul Gemm",
    "CONVOLUTION": "Conv",
    "GATHER": "Gather GatherND GatherElements",
    "ELEMENTWISE": "Add Sub Mul Div Pow And Or Xor Equal Greater Less Min Max",
    "SOFTMAX": "Softmax",
    "NORMALIZATION": "LayerNormalization",
    "CAST": "Cast",
    "SHUFFLE": "Reshape Transpose Flatten",
    "SQUEEZE": "Squeeze",
    "UNSQUEEZE": "Unsqueeze",
    "CONSTANT": "Constant",
    "SHAPE": "Shape",
    "UNARY": "Erf Sqrt Neg Not Abs Exp Reciprocal IsNaN",
    "ACTIVATION": "Relu Gelu Tanh Sigmoid Clip",
    "SELECT": "Where",
    "CONCATENATION": "Concat",
    "SLICE": "Slice Expand",
    "REDUCE": "ReduceMean ReduceSum ReduceMax",
    "FILL": "ConstantOfShape Range",
}
_LAYER_OF = {op: name for name, ops in _LAYERS.items() for op in ops.split()}


class ITensor(_NoConstructor):
    """A tensor of a parsed network."""

    name = property(lambda self: self._name, lambda self, value: self._network._rename(self, value))
    shape = property(lambda self: self._network._shape(self._name))
    is_shape_tensor = property(lambda self: False)
    is_execution_tensor = property(lambda self: True)
    is_network_input = property(lambda self: any(self._name == v.name for v in self._network._inputs()))
    is_network_output = property(lambda self: any(self._name == v.name for v in self._network._model.graph.output))
    location = property(lambda self: _enums["TensorLocation"].DEVICE)
    allowed_formats = property(lambda self: 1, lambda self, value: None)
    dtype = property(lambda self: self._network._type(self._name))

    def set_dynamic_range(self, min, max):  # noqa: A002
        self._network._ranges[self._name] = (min, max)
        return True

    def reset_dynamic_range(self):
        self._network._ranges.pop(self._name, None)

    dynamic_range = property(lambda self: self._network._ranges.get(self._name))


_only_in_10(ITensor, "set_dynamic_range", "reset_dynamic_range", "dynamic_range")


def _layer_type(name):
    """Return a member of LayerType; TensorRT 8 knows plugins of version 2 alone."""
    members = _enums["LayerType"].__members__
    return members["PLUGIN_V2" if name == "PLUGIN_V3" and name not in members else name]


class ILayer(_NoConstructor):
    """A layer of a parsed network: one node of the graph."""

    name = property(lambda self: self._node.name, lambda self, value: setattr(self._node, "name", value))
    metadata = property(lambda self: f"[ONNX Layer: {self._node.name}]")
    num_inputs = property(lambda self: len(self._node.input))
    num_outputs = property(lambda self: len(self._node.output))
    precision_is_set = property(lambda self: "_precision" in vars(self._network._kept(self._node)))
    precision = property(
        lambda self: vars(self._network._kept(self._node)).get("_precision", _DataType.FLOAT),
        lambda self, value: setattr(self._network._kept(self._node), "_precision", _need(value, _DataType)),
    )

    @property
    def type(self):
        plugin = "PLUGIN_V3" if self._node.domain == _graph.PLUGINS else "IDENTITY"
        return _enums["LayerType"].__members__[_LAYER_OF.get(self._node.op_type, plugin)]

    def get_input(self, index):
        return self._network._tensor(self._node.input[index])

    def get_output(self, index):
        return self._network._tensor(self._node.output[index])

    def get_output_type(self, index):
        return self.get_output(index).dtype

    def set_output_type(self, index, dtype):
        self._network._kept(self._node)._output_type = _need(dtype, _DataType)


_only_in_10(ILayer, "precision", "precision_is_set", "set_output_type")


class _WrittenLayer(ILayer):
    """A layer written through the network API."""

    name = property(lambda self: self._layer.name, lambda self, value: setattr(self._layer, "name", value))
    type = property(lambda self: _layer_type(_written.KINDS[self._layer.kind]))
    metadata = property(lambda self: "")
    num_inputs = property(lambda self: self._layer.num_inputs)
    num_outputs = property(lambda self: self._layer.num_outputs)
    precision_is_set = property(lambda self: False)

    def get_input(self, index):
        return self._layer.get_input(index)

    def get_output(self, index):
        return self._layer.get_output(index)


class INetworkDefinition(_NoConstructor):
    """The network; the methods that write one layer by layer are those of tests/network_double.py."""

    name = property(lambda self: self._name, lambda self, value: setattr(self, "_name", value))
    flags = property(lambda self: self._flags)
    builder = property(lambda self: self._builder)
    has_implicit_batch_dimension = property(lambda self: False)

    def get_flag(self, flag):
        return bool(self._flags >> int(_need(flag, _enums["NetworkDefinitionCreationFlag"])) & 1)

    @property
    def num_inputs(self):
        return self._writing.num_inputs if self._writing else len(self._inputs())

    @property
    def num_outputs(self):
        return self._writing.num_outputs if self._writing else len(self._model.graph.output)

    @property
    def num_layers(self):
        return self._writing.num_layers if self._writing else len(self._model.graph.node)

    def get_input(self, index):
        return self._writing.get_input(index) if self._writing else self._tensor(self._inputs()[index].name)

    def get_output(self, index):
        return self._writing.get_output(index) if self._writing else self._tensor(self._model.graph.output[index].name)

    def get_layer(self, index):
        if self._writing:
            return _WrittenLayer._made(_network=self, _layer=self._writing.get_layer(index))
        return ILayer._made(_network=self, _node=self._model.graph.node[index])

    def __len__(self):
        return self.num_layers

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.get_layer(index % len(self))

    def mark_output(self, tensor):
        if self._writing:
            self._writing.mark_output(tensor)
        elif not tensor.is_network_output:
            value = self._model.graph.output.add()
            value.CopyFrom(self._values()[tensor.name])

    def unmark_output(self, tensor):
        outputs = self._model.graph.output
        outputs.remove(next(value for value in outputs if value.name == tensor.name))

    def mark_unfused_tensors_as_debug_tensors(self):
        return True

    # The rest is for the double itself.

    def _inputs(self):
        return _graph.inputs(self._model)

    def _values(self):
        if self._value_infos is None:
            self._value_infos = _graph.values_of(self._model)
        return self._value_infos

    def _tensor(self, name):
        return ITensor._made(_network=self, _name=name) if name else None

    def _kept(self, node):
        return self._nodes.setdefault(node.output[0], ILayer._made())

    def _shape(self, name):
        held = next((t for t in self._model.graph.initializer if t.name == name), None)
        if held is not None:
            return _Dims(held.dims)
        value = self._values().get(name)
        return _Dims(()) if value is None else _graph.shape_of(value)

    def _symbols(self, name):
        """The names of the sizes that are not fixed, as the graph has them."""
        value = None if self._writing else self._values().get(name)
        return [] if value is None else [size.dim_param for size in value.type.tensor_type.shape.dim]

    def _type(self, name):
        held = next((t for t in self._model.graph.initializer if t.name == name), None)
        value = self._values().get(name)
        kind = held.data_type if held is not None else value.type.tensor_type.elem_type if value is not None else 1
        return _graph.TYPE_OF_ONNX.get(kind, _DataType.FLOAT)

    def _rename(self, tensor, new):
        for node in self._model.graph.node:
            node.input[:] = [new if name == tensor._name else name for name in node.input]
            node.output[:] = [new if name == tensor._name else name for name in node.output]
        for value in (*self._model.graph.input, *self._model.graph.output, *self._model.graph.value_info):
            value.name = new if value.name == tensor._name else value.name
        tensor._name, self._value_infos = new, None

    def _typed(self):
        """Whether it is strongly typed: never in 8, by its flag in 10, always in 11."""
        if _MAJOR < 10:
            return False
        return _MAJOR >= 11 or self.get_flag(_enums["NetworkDefinitionCreationFlag"].STRONGLY_TYPED)


_written.add_to(INetworkDefinition)


def new_network(builder, flags):
    import onnx

    return INetworkDefinition._made(
        _builder=builder,
        _flags=int(flags),
        _name="",
        _model=onnx.ModelProto(),
        _value_infos=None,
        _writing=None,
        _ranges={},
        _nodes={},
    )
