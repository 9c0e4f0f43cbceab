"""The ONNX graph of the plugin path: an encoder with TensorRT's attention and LayerNorm plugins, without padding.

The rows of a batch are concatenated (packed), so nothing is computed for padded positions. Activations are
[tokens, channels, 1, 1], and linear layers are 1x1 convolutions. In this form, NVIDIA's BERT sample stays in INT8 from
the first layer to the last (demo/BERT/builder_varseqlen.py of NVIDIA/TensorRT). The same repository documents the
plugins in plugin/bertQKVToContextPlugin and plugin/skipLayerNormPlugin.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from toolchain.base.tensors import INT8_LEVELS, Array, Batch
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.graph.encoder import EMBEDDED, Encoder, Layer, tensor_name
from toolchain.graph.match import Linear, Norm, copy_nodes
from toolchain.graph.operators import PLUGINS

OPSET, IR_VERSION = 18, 10
QKV = "CustomQKVToContextPluginDynamic"
SKIP_NORM = "CustomSkipLayerNormPluginDynamic"

# Values of the plugins' attribute `type_id`, as in TensorRT's enum DataType.
FP32, FP16, INT8 = 0, 1, 2

# What the attention kernels support: head sizes, the largest length in tokens, and compute capabilities (times ten).
HEAD_SIZES = (32, 64)
MAX_LENGTH = 512
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 120)

# The shape of a tensor. A name in it stands for a dynamic size.
Shape = Sequence[Any] | ir.Shape


def check_packable(encoder: Encoder, *, max_length: int, sm: int, precision: str) -> None:
    """Refuse a model, precision or GPU that the attention plugin lacks a kernel for.

    `max_length` is the largest number of tokens in a row, `sm` the GPU's compute capability times ten: 75 for
    a T4.

    Raises:
        InputError: the plugin has no kernel for the head size or the length.
        UsageError: the plugin has no kernel for the precision.
        MachineError: the plugin has no kernel for the GPU.
    """
    native = "Build with --attention native"
    if encoder.head_size not in HEAD_SIZES:
        raise InputError(
            f"attention: the head size is {encoder.head_size}; the plugin has kernels for 32 and 64. {native}."
        )
    if precision not in ("fp16", "int8"):
        raise UsageError(f"--attention plugin: the plugin has kernels for fp16 and int8, not {precision}. {native}.")
    most = min(MAX_LENGTH, len(encoder.positions))
    if max_length > most:
        raise InputError(f"attention: rows have up to {max_length} tokens; the plugin accepts up to {most}. {native}.")
    if sm not in ARCHITECTURES:
        known = ", ".join(f"{one // 10}.{one % 10}" for one in ARCHITECTURES)
        raise MachineError(
            f"attention: this GPU has compute capability {sm // 10}.{sm % 10}; the plugin has kernels for {known}. "
            f"{native}."
        )


def pack_batch(batch: Batch) -> dict[str, Array]:
    """Convert a padded batch to the inputs of a packed graph, all int32, with the padding removed.

    input_ids, position_ids and, if the batch has them, token_type_ids are [tokens]. cu_seqlens, [batch + 1], has the
    index of the first token of each row, then the total number of tokens. max_seqlen is an array as long as the longest
    row; the plugin reads only its shape.

    Raises:
        InputError: a row's mask is not 1s followed by 0s, or the row has no token.
    """
    mask = batch["attention_mask"]
    lengths = mask.sum(axis=1)
    places = np.arange(mask.shape[1], dtype=np.int32)
    kept = places < lengths[:, None]
    wrong = np.flatnonzero((mask != kept).any(axis=1) | (lengths == 0))
    if wrong.size:
        why = "has no token" if not mask[wrong[0]].any() else "has a mask other than 1s followed by 0s"
        raise InputError(f"row {wrong[0]} of the batch {why}. Pad rows on the right only.")
    made = {"input_ids": batch["input_ids"][kept], "position_ids": np.broadcast_to(places, mask.shape)[kept]}
    if "token_type_ids" in batch:
        made["token_type_ids"] = batch["token_type_ids"][kept]
    made["cu_seqlens"] = np.concatenate([[0], np.cumsum(lengths)])
    made["max_seqlen"] = np.zeros(lengths.max(initial=1), np.int32)
    return {name: np.ascontiguousarray(array, np.int32) for name, array in made.items()}


def interleave_heads(query: Array, key: Array, value: Array, heads: int) -> Array:
    """Join query, key and value, each [hidden, ...], into one array [3 * hidden, ...] in the order of the heads.

    The plugin's kernels read query, key and value of a head one after the other: [heads, 3, head size].
    """
    parts = np.stack([query, key, value])
    split = parts.reshape(3, heads, parts.shape[1] // heads, *parts.shape[2:])
    return np.ascontiguousarray(np.moveaxis(split, 0, 1).reshape(-1, *parts.shape[2:]))


def join_qkv(layer: Layer, heads: int) -> Linear:
    """Join the query, key and value layers into one linear layer with weight [in, 3 * hidden], by interleave_heads."""
    parts = (layer.query, layer.key, layer.value)
    query, key, value = (part.weight.T for part in parts)
    weight = interleave_heads(query, key, value, heads).T
    return Linear(weight, interleave_heads(parts[0].bias, parts[1].bias, parts[2].bias, heads))


def packed_graph(
    encoder: Encoder, *, dtype: str, attention_type: int, norm_type: int, versions: dict[str, str]
) -> ir.Model:
    """Return the graph of an encoder for packed batches, which `pack_batch` makes.

    Args:
        encoder: the result of `parse_encoder`.
        dtype: "float16" gives every activation and weight this type, for a strongly typed network; "float32" lets
            TensorRT choose the types, for implicit quantization.
        attention_type: type_id of the attention plugin, FP16 or INT8; FP32 is for comparisons in tests.
        norm_type: type_id of the residual LayerNorms, FP32 or FP16. The LayerNorm of the embeddings is always FP32,
            because float16's epsilon of 9.8e-4 is as large as the variances there.
        versions: plugin name -> version, from TensorRT's plugin registry.

    Raises:
        ValueError: `dtype` is neither "float16" nor "float32", or `attention_type` does not fit it.
    """
    if dtype not in ("float16", "float32") or (dtype == "float16" and attention_type != FP16):
        raise ValueError(f"dtype {dtype} does not go with attention of type {attention_type}")
    width = ir.DataType.FLOAT16 if dtype == "float16" else ir.DataType.FLOAT
    return _GraphWriter(encoder, width, versions).write(attention_type, norm_type)


class _GraphWriter:
    """Writes the packed graph of one encoder, node after node.

    `width` is the type of activations and weights, float16 or float32.
    """

    def __init__(self, encoder: Encoder, width: ir.DataType, versions: dict[str, str]) -> None:
        self.encoder, self.width, self.versions = encoder, width, versions
        self.nodes: list[ir.Node] = []
        self.constants: dict[str, ir.Value] = {}
        names = ["input_ids", "position_ids", *(["token_type_ids"] if encoder.types is not None else [])]
        self.inputs = {name: _value(name, ir.DataType.INT32, ["tokens"]) for name in names}
        self.inputs["cu_seqlens"] = _value("cu_seqlens", ir.DataType.INT32, ["offsets"])
        self.inputs["max_seqlen"] = _value("max_seqlen", ir.DataType.INT32, ["longest"])

    def write(self, attention_type: int, norm_type: int) -> ir.Model:
        """Return the whole graph, from the embeddings to the logits."""
        hidden = self.embeddings()
        for index, layer in enumerate(self.encoder.layers):
            hidden = self.layer(index, layer, hidden, attention_type, norm_type)
        logits = self.head(hidden)
        part = ir.Graph(
            list(self.inputs.values()),
            [logits],
            nodes=self.nodes,
            initializers=list(self.constants.values()),
            opset_imports={"": OPSET, PLUGINS: 1},
            name="packed",
        )
        return ir.Model(part, ir_version=IR_VERSION, producer_name="encoder-toolchain")

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        name: str,
        shape: Shape,
        attributes: dict[str, Any] | None = None,  # values that onnx_ir accepts: numbers, strings, tensors, lists
        *,
        dtype: ir.DataType | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Append a node with one output, both called `name`; return the output.

        The output has the type `dtype` or, without one, the type of the first input.
        """
        node = ir.node(op_type, inputs, attributes, domain=domain, name=name)
        made = node.outputs[0]
        made.name, made.type, made.shape = name, ir.TensorType(dtype) if dtype else inputs[0].type, ir.Shape(shape)
        self.nodes.append(node)
        return made

    def constant(self, name: str, array: Array) -> ir.Value:
        """Return the constant called `name`, which holds `array`; a float32 array is converted to `width`.

        Raises:
            InputError: a value is outside float16's range.
        """
        if name not in self.constants:
            if array.dtype == np.float32 and self.width == ir.DataType.FLOAT16:
                if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
                    raise InputError(
                        f"{name}: the constant has a value outside float16's range. "
                        "Build with --attention native or --precision int8."
                    )
                array = array.astype(np.float16)
            tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
            self.constants[name] = ir.Value(
                name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
        return self.constants[name]

    def embeddings(self) -> ir.Value:
        """Return the embeddings: the LayerNorm of the sum of word, position and type rows.

        The tables are [rows, hidden, 1, 1], so that their rows have the shape of activations.
        """
        encoder = self.encoder
        words = self.rows("words", encoder.words, "input_ids")
        positions = self.rows("positions", encoder.positions, "position_ids")
        if encoder.types is not None:
            types = self.rows("types", encoder.types, "token_type_ids")
            shape = ["tokens", encoder.hidden, 1, 1]
            positions = self.add("Add", [positions, types], "embeddings.placed", shape)
        return self.norm(EMBEDDED, encoder.norm, words, positions, FP32)

    def rows(self, kind: str, table: Array, index: str) -> ir.Value:
        """Return the rows of a table that the graph input `index` selects, [tokens, hidden, 1, 1]."""
        weight = self.constant(f"embeddings.{kind}.weight", table[:, :, None, None])
        shape = ["tokens", table.shape[1], 1, 1]
        return self.add("Gather", [weight, self.inputs[index]], f"embeddings.{kind}", shape, {"axis": 0})

    def norm(self, name: str, norm: Norm, x: ir.Value, skip: ir.Value, type_id: int) -> ir.Value:
        """Return LayerNorm(x + skip), computed in the type `type_id`; for FP32 in a float16 graph, Casts are added."""
        full = type_id == FP32 and self.width == ir.DataType.FLOAT16
        size = norm.gamma.size
        shape = ["tokens", size, 1, 1]
        if full:
            x, skip = (self.cast(value, ir.DataType.FLOAT, f"{value.name}.fp32.{name}") for value in (x, skip))
        attributes = {
            **self.version(SKIP_NORM),
            "type_id": type_id,
            "ld": size,
            "beta": ir.tensor(norm.beta),
            "gamma": ir.tensor(norm.gamma),
        }
        made = self.add(SKIP_NORM, [x, skip], f"{name}.fp32" if full else name, shape, attributes, domain=PLUGINS)
        return self.cast(made, self.width, name) if full else made

    def cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        return self.add("Cast", [value], name, value.shape or (), {"to": int(dtype)}, dtype=dtype)

    def version(self, plugin: str) -> dict[str, str]:
        """Return the attributes by which TensorRT finds a plugin: its version and namespace."""
        return {"plugin_version": self.versions[plugin], "plugin_namespace": ""}

    def layer(self, index: int, layer: Layer, hidden: ir.Value, attention_type: int, norm_type: int) -> ir.Value:
        """Return the output of one encoder layer."""

        def name(role: str) -> str:
            return tensor_name(index, role)

        qkv = self.linear(name("qkv"), join_qkv(layer, self.encoder.heads), hidden)
        context = self.attention(name("context"), qkv, attention_type)
        attended = self.linear(name("attended"), layer.output, context)
        normed = self.norm(name("normed"), layer.attention_norm, attended, hidden, norm_type)
        inner = self.linear(name("inner"), layer.inner, normed)
        activated = self.activation(name("activated"), layer.activation, inner)
        outer = self.linear(name("outer"), layer.outer, activated)
        return self.norm(name("output"), layer.output_norm, outer, normed, norm_type)

    def linear(self, name: str, linear: Linear, x: ir.Value) -> ir.Value:
        """Return the output of a linear layer, written as a 1x1 convolution with weight [out, in, 1, 1]."""
        weight = self.constant(f"{name}.weight", linear.weight.T[:, :, None, None])
        bias = self.constant(f"{name}.bias", linear.bias)
        return self.add("Conv", [x, weight, bias], name, ["tokens", linear.bias.size, 1, 1], {"kernel_shape": [1, 1]})

    def attention(self, name: str, qkv: ir.Value, type_id: int) -> ir.Value:
        """Return the output of the attention plugin, before attention's output layer."""
        attributes = {
            **self.version(QKV),
            "type_id": type_id,
            "hidden_size": self.encoder.hidden,
            "num_heads": self.encoder.heads,
            "has_mask": 1,
            "var_seqlen": 1,
        }
        if type_id == INT8:  # dq_probs is the scale of the probabilities, which lie in 0..1
            attributes |= {"dq_probs": 1 / INT8_LEVELS, "use_int8_scale_max": 1}
        # In other layouts, the second input is the mask. In this layout the plugin needs the input but does not read
        # it.
        offsets, longest = self.inputs["cu_seqlens"], self.inputs["max_seqlen"]
        shape = ["tokens", self.encoder.hidden, 1, 1]
        return self.add(QKV, [qkv, offsets, offsets, longest], name, shape, attributes, domain=PLUGINS)

    def activation(self, name: str, function: str, x: ir.Value) -> ir.Value:
        """Return the result of the activation function on `x`: ReLU, or GELU in the order of clean.plain_gelu."""
        shape = x.shape or ()
        if function == "relu":
            return self.add("Relu", [x], name, shape)
        root, one, half = (
            self.constant(f"gelu.{word}", np.full((1, 1, 1, 1), number, np.float32))
            for word, number in (("sqrt2", 2**0.5), ("one", 1), ("half", 0.5))
        )
        erf = self.add("Erf", [self.add("Div", [x, root], f"{name}.divided", shape)], f"{name}.erf", shape)
        product = self.add("Mul", [x, self.add("Add", [erf, one], f"{name}.plus_one", shape)], f"{name}.product", shape)
        return self.add("Mul", [product, half], name, shape)

    def head(self, hidden: ir.Value) -> ir.Value:
        """Return the logits, float32: the encoder's own head, applied to the first token of each row."""
        size = self.encoder.hidden
        flat = self.add(
            "Reshape", [hidden, self.constant("head.shape", np.array([-1, size]))], "head.tokens", ["tokens", size]
        )
        ends = [self.constant(f"head.{word}", np.array([number])) for word, number in (("zero", 0), ("last", -1))]
        starts = self.add("Slice", [self.inputs["cu_seqlens"], *ends], "head.starts", ["batch"])
        first = self.add("Gather", [flat, starts], "head.first", ["batch", size], {"axis": 0})
        if self.width != ir.DataType.FLOAT:
            first = self.cast(first, ir.DataType.FLOAT, "head.first.fp32")
        select, *rest = self.encoder.head
        known = {select.outputs[0]: first}
        self.nodes += copy_nodes(rest, known)
        self.constants |= {str(value.name): value for value in known.values() if value.const_value is not None}
        return known[rest[-1].outputs[0]]


def _value(name: str, dtype: ir.DataType, shape: Shape) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
