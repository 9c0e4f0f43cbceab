"""TensorRT's network API, as far as it is used here: it checks as the library does, and computes in numpy.

`Network` takes the objects of any module that looks like `tensorrt`: enums with a `name`, weights with
`numpy()`, plugin fields with `name` and `data`. What it keeps of them are strings and arrays, so it can be
pickled where this module is importable.

Of a plugin it reads `plugin_type`, `plugin_version` and `fields`, or `_fields`: a dictionary of its values.
"""

import enum
import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np

QKV, SKIP_NORM = "CustomQKVToContextPluginDynamic", "CustomSkipLayerNormPluginDynamic"
FIXED = {QKV: {"1", "4"}, SKIP_NORM: {"1", "5"}}
"""Plugin -> its versions for rows of one length."""

BINARY = {"SUM": np.add, "PROD": np.multiply, "DIV": np.divide, "SUB": np.subtract, "MAX": np.maximum}
UNARY = {"ERF": np.vectorize(math.erf, otypes=[np.float32]), "NEG": np.negative, "SQRT": np.sqrt, "EXP": np.exp}
ACTIVATIONS = {"RELU": lambda x: np.maximum(x, 0), "TANH": np.tanh}


def plugin_reference():
    spec = importlib.util.spec_from_file_location("plugin_reference", Path(__file__).with_name("plugin_reference.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tensor:
    """An ITensor; named (Unnamed Layer* N) until it is given a name."""

    is_shape_tensor = False

    def __init__(self, name, shape, dtype, *, is_input=False):
        self.name, self.shape, self.dtype = name, tuple(int(size) for size in shape), dtype
        self.is_network_input, self.is_network_output = is_input, False
        self.dynamic_range = None


class Layer:
    """An ILayer with one output; `compute` is the name of the method of Network that evaluates it."""

    def __init__(self, number, kind, inputs, output, **settings):
        self.name, self.kind, self.inputs, self.output = f"(Unnamed Layer* {number}) [{kind}]", kind, inputs, output
        self.settings = settings
        output.name = f"{self.name}_output"

    num_outputs = 1

    @property
    def num_inputs(self):
        return len(self.inputs)

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        assert index == 0
        return self.output


class Network:
    """An INetworkDefinition: what is added is checked at once, as TensorRT checks it."""

    def __init__(self):
        self.inputs, self.layers, self.outputs = [], [], []

    num_inputs = property(lambda self: len(self.inputs))
    num_layers = property(lambda self: len(self.layers))
    num_outputs = property(lambda self: len(self.outputs))

    def get_input(self, index):
        return self.inputs[index]

    def get_layer(self, index):
        return self.layers[index]

    def get_output(self, index):
        return self.outputs[index]

    def add_input(self, name, dtype, shape):
        assert name not in {tensor.name for tensor in self.inputs}
        self.inputs.append(Tensor(name, shape, dtype, is_input=True))
        return self.inputs[-1]

    def mark_output(self, tensor):
        assert tensor in [layer.output for layer in self.layers]
        tensor.is_network_output = True
        self.outputs.append(tensor)

    def _add(self, kind, inputs, shape, dtype, **settings):
        known = {*self.inputs, *(layer.output for layer in self.layers)}
        assert known.issuperset(inputs), f"{kind} reads a tensor of another network"
        layer = Layer(len(self.layers), kind, list(inputs), Tensor("", shape, dtype), **settings)
        self.layers.append(layer)
        return layer

    def add_constant(self, shape, weights):
        array = weights.numpy()
        assert array.size == math.prod(shape), f"{array.size} weights for a constant of {tuple(shape)}"
        return self._add("Constant", [], shape, weights.dtype, array=array.reshape(tuple(shape)))

    def add_gather(self, input, indices, axis):  # noqa: A002
        assert indices.dtype.name in ("INT32", "INT64")
        shape = (*input.shape[:axis], *indices.shape, *input.shape[axis + 1 :])
        return self._add("Gather", [input, indices], shape, input.dtype, axis=axis)

    def add_elementwise(self, input1, input2, op):
        assert len(input1.shape) == len(input2.shape), f"{input1.shape} and {input2.shape}: TensorRT wants equal ranks"
        shape = np.broadcast_shapes(input1.shape, input2.shape)
        return self._add("ElementWise", [input1, input2], shape, input1.dtype, op=op.name)

    def add_unary(self, input, op):  # noqa: A002
        return self._add("Unary", [input], input.shape, input.dtype, op=op.name)

    def add_activation(self, input, type):  # noqa: A002
        return self._add("Activation", [input], input.shape, input.dtype, op=type.name)

    def add_convolution_nd(self, input, num_output_maps, kernel_shape, kernel, bias=None):  # noqa: A002
        *rows, channels, height, width = input.shape
        assert tuple(kernel_shape) == (1, 1)
        assert (height, width) == (1, 1)
        assert 4 <= len(input.shape) <= 5
        weight, shift = kernel.numpy(), np.zeros(num_output_maps, np.float32) if bias is None else bias.numpy()
        assert weight.size == num_output_maps * channels
        assert shift.size == num_output_maps
        settings = {"weight": weight.reshape(num_output_maps, channels), "bias": shift}
        return self._add("Convolution", [input], (*rows, num_output_maps, 1, 1), input.dtype, **settings)

    def add_plugin_v2(self, inputs, plugin):
        return self._plugin(inputs, plugin, {"1"})

    def add_plugin_v3(self, inputs, shape_inputs, plugin):
        assert list(shape_inputs) == []
        return self._plugin(inputs, plugin, {"4", "5"})

    def _plugin(self, inputs, plugin, versions):
        kind, fields = plugin.plugin_type, getattr(plugin, "fields", None) or plugin._fields
        assert plugin.plugin_version in FIXED[kind] & versions, (
            f"{kind} {plugin.plugin_version} is of another interface"
        )
        first, second = inputs
        assert len(first.shape) == 5
        assert first.shape[3:] == (1, 1)
        assert first.dtype.name == "FLOAT"
        assert fields["type_id"] == 0
        if kind == QKV:  # in float32 the mask is [batch, 1]: how many tokens each row has
            assert second.shape == (first.shape[1], 1)
            assert second.dtype.name == "INT32"
            assert first.shape[2] == 3 * fields["hidden_size"]
            shape = (*first.shape[:2], fields["hidden_size"], 1, 1)
        else:
            assert first.shape == second.shape
            assert fields["ld"] == first.shape[2] == len(fields["gamma"]) == len(fields["beta"])
            shape = first.shape
        return self._add("Plugin", inputs, shape, first.dtype, plugin=kind, fields=dict(fields))

    def evaluate(self, feeds):
        """Return {tensor name: array} of every input and of every layer's output."""
        values = {}
        for tensor in self.inputs:
            array = np.asarray(feeds[tensor.name])
            assert array.shape == tensor.shape, f"{tensor.name}: {array.shape} given, {tensor.shape} declared"
            values[tensor] = array
        for layer in self.layers:
            arrays = [values[tensor] for tensor in layer.inputs]
            made = getattr(self, f"_run_{layer.kind.lower()}")(layer.settings, *arrays)
            assert made.shape == layer.output.shape
            values[layer.output] = made
        return {tensor.name: array for tensor, array in values.items()}

    @staticmethod
    def _run_constant(settings):
        return settings["array"]

    @staticmethod
    def _run_gather(settings, table, ids):
        return np.take(table, ids, axis=settings["axis"])

    @staticmethod
    def _run_elementwise(settings, left, right):
        return BINARY[settings["op"]](left, right)

    @staticmethod
    def _run_unary(settings, x):
        return UNARY[settings["op"]](x)

    @staticmethod
    def _run_activation(settings, x):
        return ACTIVATIONS[settings["op"]](x)

    @staticmethod
    def _run_convolution(settings, x):
        return (x[..., 0, 0] @ settings["weight"].T + settings["bias"])[..., None, None]

    @staticmethod
    def _run_plugin(settings, first, second):
        reference, fields = plugin_reference(), settings["fields"]
        if settings["plugin"] == SKIP_NORM:
            epsilon = reference.EPSILON[fields["type_id"]]
            return reference.skip_layer_norm(first, second, fields["gamma"], fields["beta"], epsilon)
        heads = fields["num_heads"]
        context = reference.qkv_fixed(first[..., 0, 0], second[:, 0], heads, fields["hidden_size"] // heads)
        return context[..., None, None]


# A module to go with it where no larger double is there.


class Weights:
    def __init__(self, array):
        self.array = array
        self.dtype = DataType.FLOAT

    def numpy(self):
        return self.array.reshape(-1)


class PluginField:
    def __init__(self, name, data, type):  # noqa: A002
        assert data.dtype == {"INT32": np.int32, "FLOAT32": np.float32}[type.name]
        self.name, self.data, self.type = name, data, type


class Creator:
    def __init__(self, kind, version):
        self.kind, self.version = kind, version

    def create_plugin(self, name, field_collection):
        fields = {one.name: one.data[0].item() if one.data.size == 1 else one.data for one in field_collection}
        return SimpleNamespace(plugin_type=self.kind, plugin_version=self.version, fields=fields)


class CreatorV3(Creator):
    def create_plugin(self, name, field_collection, phase):
        assert phase.name == "BUILD"
        return super().create_plugin(name, field_collection)


class Registry:
    """Has the fixed-length plugins of the versions given: from 4 on they are of the new interface."""

    def __init__(self, versions):
        self.versions = versions

    def get_creator(self, type, version, plugin_namespace=""):  # noqa: A002
        assert plugin_namespace == ""
        if version not in FIXED[type] & self.versions:
            return None
        return (CreatorV3 if int(version) >= 4 else Creator)(type, version)


DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 INT64")


def tensorrt(versions=("1", "4", "5")):
    """Return what stands for the module `tensorrt`, with these versions of the plugins."""
    return SimpleNamespace(
        DataType=DataType,
        Weights=Weights,
        PluginField=PluginField,
        PluginFieldCollection=list,
        PluginFieldType=enum.Enum("PluginFieldType", "INT32 FLOAT32"),
        ElementWiseOperation=enum.Enum("ElementWiseOperation", "SUM PROD DIV"),
        UnaryOperation=enum.Enum("UnaryOperation", "ERF"),
        ActivationType=enum.Enum("ActivationType", "RELU"),
        TensorRTPhase=enum.Enum("TensorRTPhase", "BUILD RUNTIME"),
        IPluginCreatorV3One=CreatorV3,
        get_plugin_registry=lambda: Registry(set(versions)),
    )
