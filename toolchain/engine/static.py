"""Builds an encoder as a TensorRT network of one fixed shape, in float32, for TensorRT's calibrator.

The attention plugin without padding has no float32 mode, so it cannot be calibrated. As in NVIDIA's BERT sample
(demo/BERT/builder.py of NVIDIA/TensorRT), a network with the fixed-length plugins is calibrated instead. It has the
same layers and the same tensor names, by which the engine without padding finds its scales.
"""

from typing import Any

import numpy as np

from toolchain.base.tensors import Array
from toolchain.engine.plugins import find_creator
from toolchain.errors import InputError, MachineError
from toolchain.graph.encoder import EMBEDDED, Encoder, tensor_name
from toolchain.graph.match import Linear, Norm
from toolchain.graph.plugin_graph import FP32, QKV, SKIP_NORM, join_qkv

# Major versions of TensorRT whose API this module uses. TensorRT 11 has no calibrator.
MAJORS = (8, 10)


def static_network(
    trt: Any, network: Any, encoder: Encoder, *, batch: int, length: int, versions: dict[str, str]
) -> list[Any]:
    """Add an encoder to an empty INetworkDefinition. Its output is the last hidden state.

    The output is float32 [length, batch, hidden, 1, 1]. The inputs are int32: input_ids and, if the encoder has token
    types, token_type_ids, both [length, batch]; and lengths [batch, 1], the number of real tokens of each row.
    `versions` maps plugin names to their versions for fixed lengths (plugins.FIXED_LENGTH).

    Returns:
        Objects that must stay alive until the engine is built, because TensorRT does not copy weights.

    Raises:
        InputError: `length` is larger than the position table.
        MachineError: TensorRT lacks a plugin, or refuses a layer.
    """
    if length > len(encoder.positions):
        raise InputError(
            f"calibration: the rows have {length} tokens, and the model has {len(encoder.positions)} positions. "
            "Build for shorter rows with --seq-len."
        )
    writer = _NetworkWriter(trt, network, encoder, versions)
    tensor = writer.embeddings(batch, length)
    lengths = network.add_input("lengths", trt.DataType.INT32, (batch, 1))
    for index in range(len(encoder.layers)):
        tensor = writer.encoder_layer(index, tensor, lengths)
    network.mark_output(tensor)
    return writer.kept


class _NetworkWriter:
    """Adds an encoder's layers to one network. `kept` has the objects that must live until the engine is built."""

    def __init__(self, trt: Any, network: Any, encoder: Encoder, versions: dict[str, str]) -> None:
        self.trt, self.network, self.encoder, self.versions = trt, network, encoder, versions
        self.kept: list[Any] = []
        self.numbers: dict[float, Any] = {}

    def output(self, layer: Any, name: str) -> Any:
        """Name a new layer and its output; return the output.

        Raises:
            MachineError: TensorRT refused the layer.
        """
        if layer is None:
            raise MachineError(f"TensorRT: it rejects the layer {name}. Build with --attention native.")
        layer.name = name
        tensor = layer.get_output(0)
        tensor.name = name
        return tensor

    def weights(self, array: Array) -> Any:
        """Return an array as TensorRT weights in float32, and keep it alive."""
        kept = np.ascontiguousarray(array, np.float32)
        weights = self.trt.Weights(kept)
        self.kept += [kept, weights]
        return weights

    def constant(self, name: str, array: Array) -> Any:
        """Add a constant layer and return its output tensor."""
        layer = self.network.add_constant(array.shape, self.weights(array))
        return self.output(layer, name)

    def number(self, value: float) -> Any:
        """Return a constant of one element and rank 5, because elementwise layers need inputs of equal rank."""
        if value not in self.numbers:
            self.numbers[value] = self.constant(f"number.{value:.6g}", np.full((1,) * 5, value))
        return self.numbers[value]

    def embeddings(self, batch: int, length: int) -> Any:
        """Return the sum of word, position and type embeddings after LayerNorm."""
        trt, network, encoder = self.trt, self.network, self.encoder
        words = self.rows("words", encoder.words, "input_ids", (length, batch))
        # The plugin adds two tensors of the same shape, so the positions are repeated for each row of the batch.
        placed = np.repeat(encoder.positions[:length, None, :, None, None], batch, axis=1)
        positions = self.constant("embeddings.positions", placed)
        if encoder.types is not None:
            types = self.rows("types", encoder.types, "token_type_ids", (length, batch))
            layer = network.add_elementwise(positions, types, trt.ElementWiseOperation.SUM)
            positions = self.output(layer, "embeddings.placed")
        return self.norm(EMBEDDED, encoder.norm, words, positions)

    def rows(self, kind: str, table: Array, index: str, shape: tuple[int, int]) -> Any:
        """Add an input of indices, named `index`, and return the rows of an embedding table at these indices."""
        weight = self.constant(f"embeddings.{kind}.weight", table[:, :, None, None])
        ids = self.network.add_input(index, self.trt.DataType.INT32, shape)
        layer = self.network.add_gather(weight, ids, 0)
        return self.output(layer, f"embeddings.{kind}")

    def encoder_layer(self, index: int, hidden: Any, lengths: Any) -> Any:
        """Add the encoder layer number `index` and return its output."""
        part = self.encoder.layers[index]

        def name(role: str) -> str:
            return tensor_name(index, role)

        qkv = self.linear(name("qkv"), join_qkv(part, self.encoder.heads), hidden)
        context = self.attention(name("context"), qkv, lengths)
        attended = self.linear(name("attended"), part.output, context)
        normed = self.norm(name("normed"), part.attention_norm, attended, hidden)
        inner = self.linear(name("inner"), part.inner, normed)
        activated = self.activation(name("activated"), part.activation, inner)
        outer = self.linear(name("outer"), part.outer, activated)
        return self.norm(name("output"), part.output_norm, outer, normed)

    def linear(self, name: str, linear: Linear, tensor: Any) -> Any:
        """Return the output of a linear layer, written as a 1x1 convolution over [channels, 1, 1]."""
        kernel, bias = self.weights(linear.weight.T), self.weights(linear.bias)
        layer = self.network.add_convolution_nd(tensor, linear.bias.size, (1, 1), kernel, bias)
        return self.output(layer, name)

    def attention(self, name: str, qkv: Any, lengths: Any) -> Any:
        """Return the output of the attention plugin, which is the input of attention's output projection."""
        numbers = {"type_id": FP32, "hidden_size": self.encoder.hidden, "num_heads": self.encoder.heads, "has_mask": 1}
        fields = {key: np.array([value], np.int32) for key, value in numbers.items()}
        return self.plugin(QKV, name, fields, [qkv, lengths])

    def norm(self, name: str, norm: Norm, tensor: Any, skip: Any) -> Any:
        """Return LayerNorm(tensor + skip)."""
        fields = {
            "type_id": np.array([FP32], np.int32),
            "ld": np.array([norm.gamma.size], np.int32),
            "beta": np.ascontiguousarray(norm.beta, np.float32),
            "gamma": np.ascontiguousarray(norm.gamma, np.float32),
        }
        return self.plugin(SKIP_NORM, name, fields, [tensor, skip])

    def plugin(self, kind: str, name: str, fields: dict[str, Array], inputs: list[Any]) -> Any:
        """Add a plugin and return its output. Versions 1 and 2 are IPluginV2; 4 to 6 are the same plugins as IPluginV3.

        Raises:
            MachineError: the plugin is not registered, or it refuses the fields.
        """
        trt, network, version = self.trt, self.network, self.versions[kind]
        creator = find_creator(trt, kind, version)
        if creator is None:
            raise MachineError(
                f"TensorRT: it lacks the plugin {kind}, version {version}. Build with --attention native."
            )
        types = {"int32": trt.PluginFieldType.INT32, "float32": trt.PluginFieldType.FLOAT32}
        parts = [trt.PluginField(key, array, types[array.dtype.name]) for key, array in fields.items()]
        collection = trt.PluginFieldCollection(parts)
        self.kept += [*fields.values(), *parts, collection]
        new = hasattr(trt, "IPluginCreatorV3One") and isinstance(creator, trt.IPluginCreatorV3One)
        phase = (trt.TensorRTPhase.BUILD,) if new and hasattr(trt, "TensorRTPhase") else ()
        plugin = creator.create_plugin(name, collection, *phase)
        if plugin is None:
            raise MachineError(f"TensorRT: it rejects the plugin {kind} for {name}. Build with --attention native.")
        self.kept.append(plugin)
        if new and hasattr(network, "add_plugin_v3"):
            return self.output(network.add_plugin_v3(inputs, [], plugin), name)
        layer = network.add_plugin_v2(inputs, plugin)
        return self.output(layer, name)

    def activation(self, name: str, function: str, tensor: Any) -> Any:
        """Return ReLU or GELU of `tensor`. GELU has the same elementwise layers as in the packed graph."""
        trt, network = self.trt, self.network
        if function == "relu":
            layer = network.add_activation(tensor, trt.ActivationType.RELU)
            return self.output(layer, name)
        layer = network.add_elementwise(tensor, self.number(2**0.5), trt.ElementWiseOperation.DIV)
        layer = network.add_unary(self.output(layer, f"{name}.divided"), trt.UnaryOperation.ERF)
        layer = network.add_elementwise(self.output(layer, f"{name}.erf"), self.number(1), trt.ElementWiseOperation.SUM)
        layer = network.add_elementwise(tensor, self.output(layer, f"{name}.plus_one"), trt.ElementWiseOperation.PROD)
        layer = network.add_elementwise(
            self.output(layer, f"{name}.product"), self.number(0.5), trt.ElementWiseOperation.PROD
        )
        return self.output(layer, name)
