"""The weights and structure of a post-LayerNorm encoder classifier, parsed from its clean float32 graph.

Every part is found by structure, not by module names, so DistilBERT, BERT, RoBERTa and similar encoders all match. A
graph that does not match is refused before anything is built from it. The networks with TensorRT's attention plugin
are built from an `Encoder`.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.base.tensors import Ranges
from toolchain.errors import InputError
from toolchain.graph import constant
from toolchain.graph.clean import MASK_VALUE
from toolchain.graph.match import Linear, Matcher, Norm, Weight, axis, broadcasts_over_queries, hidden_size


@dataclass(frozen=True)
class Layer:
    """One encoder layer: its linear layers, LayerNorms, activation function and the names of its tensors.

    The query is not scaled: the product of query and key must still be divided by sqrt(head size). `query_ratio` is
    this query divided by the query in the ONNX graph. `sources` maps the roles input, query, key, value, context,
    normed and activated to names of tensors in the ONNX graph, which calibration.json has ranges for. `results` does
    the same for attended, inner, outer and output, which calibration.json has no ranges for.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    inner: Linear
    outer: Linear
    output_norm: Norm
    activation: str
    query_ratio: float
    sources: dict[str, str]
    results: dict[str, str]


@dataclass(frozen=True)
class Encoder:
    """An encoder classifier: its embedding tables, float32 [rows, hidden], its layers, and the ONNX nodes of its head.

    Row 0 of `positions` is the embedding of the first position. `types` is None if the graph has no input
    `token_type_ids`; if all tokens then have the same type, its embedding is already added to `positions`. `head` has
    the nodes from the Gather of the first token to `logits`.
    """

    words: Weight
    positions: Weight
    types: Weight | None
    norm: Norm
    layers: tuple[Layer, ...]
    heads: int
    head_size: int
    hidden: int
    head: tuple[ir.Node, ...]


# Names for the tensors of a layer, in the order of computation: Q, K and V joined; the weighted sums of V; the outputs
# of attention's output layer, of the LayerNorm after it, of the first feed-forward layer, of the activation function,
# of the second feed-forward layer, and of the last LayerNorm.
ROLES = ("qkv", "context", "attended", "normed", "inner", "activated", "outer", "output")

# Name of the input of the first layer: the output of the embeddings' LayerNorm.
EMBEDDED = "embeddings.normed"


def tensor_name(layer: int, role: str) -> str:
    """Return the name of a layer's tensor, the same in every network that is built from an Encoder.

    `role` is one of ROLES, or `input` for the input of the layer.
    """
    if role == "input":
        return tensor_name(layer - 1, "output") if layer else EMBEDDED
    if role not in ROLES:
        raise ValueError(f"role {role!r} is not one of {', '.join(ROLES)}")
    return f"layer.{layer}.{role}"


def tensor_names(encoder: Encoder) -> list[str]:
    """Return the names of the first layer's input and of all tensors of the layers, in graph order."""
    return [EMBEDDED] + [tensor_name(layer, role) for layer in range(len(encoder.layers)) for role in ROLES]


def plugin_ranges(encoder: Encoder, ranges: Ranges) -> dict[str, float]:
    """Return the amax of tensors in plugin networks, by name (tensor_name), from ranges of the ONNX graph.

    A plugin network joins query, key and value in one tensor, whose amax is the largest of the three. Tensors that
    calibration does not measure have no entry: the other outputs of linear layers, and the output of the last layer.

    Raises:
        InputError: `ranges` lacks a tensor of the graph.
    """
    found: dict[str, float] = {}
    for index, layer in enumerate(encoder.layers):
        missing = [name for name in layer.sources.values() if name not in ranges]
        if missing:
            raise InputError(f"calibration: there is no range for {missing[0]}. Calibrate this graph again.")
        amax = {role: ranges[name].amax for role, name in layer.sources.items()}
        amax["qkv"] = max(amax.pop("query") * layer.query_ratio, amax.pop("key"), amax.pop("value"))
        found |= {tensor_name(index, role): value for role, value in amax.items()}
    return found


def parse_encoder(model: ir.Model, *, where: str = "model.onnx") -> Encoder:
    """Return the weights and structure of a clean float32 export of a post-LayerNorm encoder classifier.

    Raises:
        InputError: the graph has another structure; the message says where it differs.
    """
    return _Parser(model, where).encoder()


class _Parser(Matcher):
    """Parses one graph into an `Encoder`, from the embeddings to the logits."""

    def __init__(self, model: ir.Model, where: str) -> None:
        super().__init__(model, where)
        self.inputs = {str(value.name): value for value in model.graph.inputs}
        self.masks: set[ir.Value] = set()

    def encoder(self) -> Encoder:
        self.check()
        norms = list(graph.nodes(self.model, "LayerNormalization"))
        if len(norms) < 3 or len(norms) % 2 == 0:
            self.refuse(f"it has {len(norms)} LayerNorms, but an encoder has one for its embeddings and two per layer")
        words, positions, types = self.embeddings(norms[0])
        hidden, layers, heads = norms[0].outputs[0], [], set()
        for index, (first, second) in enumerate(zip(norms[1::2], norms[2::2], strict=True)):
            layer, count = self.layer(f"layer {index}", hidden, first, second)
            layers.append(layer)
            heads.add(count)
            hidden = second.outputs[0]
        if len(heads) != 1:
            self.refuse("its layers differ in their number of heads")
        size, count = words.shape[1], heads.pop()
        return Encoder(
            *(words, positions, types, self.norm(norms[0]), tuple(layers)),
            heads=count,
            head_size=size // count,
            hidden=size,
            head=self.head(hidden),
        )

    def check(self) -> None:
        """Refuse a graph that is not a float32 text classifier. Later checks would name a misleading reason for it."""
        if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in self.model.graph):
            self.refuse("it has Q/DQ nodes")
        if any(value.dtype == ir.DataType.FLOAT16 for value in self.model.graph.initializers.values()):
            self.refuse("it is a float16 graph")
        if not {"input_ids", "attention_mask"} <= set(self.inputs) <= {"input_ids", "attention_mask", "token_type_ids"}:
            self.refuse(f"its inputs are {', '.join(self.inputs)}, not those of a text encoder")
        if [value.name for value in self.model.graph.outputs] != ["logits"]:
            self.refuse("`logits` is not its only output")

    def embeddings(self, norm: ir.Node) -> tuple[Weight, Weight, Weight | None]:
        """Return the embedding tables of words, positions and types (None without an input of types).

        `norm` is the first LayerNorm, which reads the sum of their rows.
        """
        tables: dict[str, Weight] = {}
        for leaf in self.summands(norm.inputs[0]):
            table = constant(leaf.inputs[0]) if leaf.op_type == "Gather" and axis(leaf, 0) == 0 else None
            index = leaf.inputs[1] if table is not None else None
            if table is None or table.ndim != 2 or index is None:
                self.refuse(f"its embeddings are not a sum of table rows ({leaf.op_type} is one of the summands)")
            kind, first = self.index(index)
            if kind in tables:
                self.refuse(f"its embeddings add two tables of {kind}")
            tables[kind] = table[first:] if kind == "positions" else table[first] if kind == "type" else table
        if not {"words", "positions"} <= set(tables):
            self.refuse("its embeddings lack a word table or a position table")
        # Without token_type_ids, all tokens have the same type, and its row is added to every position as a constant.
        positions = (tables["positions"] + tables.get("type", np.float32(0))).astype(np.float32)
        return tables["words"], positions, tables.get("types")

    def summands(self, value: ir.Value | None) -> list[ir.Node]:
        """Return the nodes whose outputs a tree of Add nodes adds up to `value`."""
        node = value.producer() if value else None
        if node is None:
            self.refuse("its first LayerNorm does not read embeddings")
        if node.op_type != "Add":
            return [node]
        return [leaf for part in node.inputs for leaf in self.summands(part)]

    def index(self, value: ir.Value) -> tuple[str, int]:
        """Return which embedding table `value` indexes, and the row that the first token gets.

        The table is "words", "positions", "types", or "type" if all tokens get the same row. An index that the graph
        computes is evaluated on short rows to tell which.
        """
        for name, kind in (("input_ids", "words"), ("token_type_ids", "types")):
            if value is self.inputs.get(name):
                return kind, 0
        length = 16
        # Three rows, each of which repeats one id. If one of the ids is the padding id, the position ids of its row do
        # not count up, but those of the two other rows do.
        feeds = {name: np.ones((3, length), np.int32) for name in self.inputs}
        feeds["input_ids"] *= np.array([[3], [4], [5]], np.int32)
        if "token_type_ids" in feeds:
            feeds["token_type_ids"][:, ::2] = 0  # an index that depends on token types then varies within a row
        rows = np.broadcast_to(self.run(list(self.inputs.values()), value, feeds), (3, length))
        if (rows == rows[0, 0]).all():
            return "type", int(rows[0, 0])
        counted = [row[0] for row in rows if (row == row[0] + np.arange(length)).all()]
        if len(counted) < 2 or len(set(counted)) != 1:
            self.refuse("its position ids do not count up from the first token of a row")
        return "positions", int(counted[0])

    def layer(self, at: str, hidden: ir.Value, first: ir.Node, second: ir.Node) -> tuple[Layer, int]:
        """Return one encoder layer, and its number of heads.

        `hidden` is the input of the layer, `first` its LayerNorm after attention, and `second` its last LayerNorm.
        """
        attended = self.residual(at, first, hidden)
        output, context = self.linear(at, "attention's output", attended)
        normed = first.outputs[0]
        outer_value = self.residual(at, second, normed)
        outer, activated = self.linear(at, "the feed-forward output", outer_value)
        readers = [use.node for use in normed.uses() if use.node.op_type == "MatMul"]
        if len(readers) != 1:
            self.refuse(f"{at}: {len(readers)} linear layers read the output of the LayerNorm after attention, not one")
        inner_value = self.biased(readers[0])
        inner, _ = self.linear(at, "the feed-forward input", inner_value)
        query, key, value, sources, ratio, heads = self.attention(at, hidden, context)
        names = {"context": context, "normed": normed, "activated": activated, "input": hidden} | sources
        made = {"attended": attended, "inner": inner_value, "outer": outer_value, "output": second.outputs[0]}
        layer = Layer(
            *(query, key, value, output, self.norm(first), inner, outer, self.norm(second)),
            activation=self.activation(at, inner_value, activated, inner.bias.size),
            query_ratio=ratio,
            sources={role: str(source.name) for role, source in names.items()},
            results={role: str(source.name) for role, source in made.items()},
        )
        return layer, heads

    def attention(
        self, at: str, hidden: ir.Value, context: ir.Value
    ) -> tuple[Linear, Linear, Linear, dict[str, ir.Value], float, int]:
        """Return query, key and value layers, role -> tensor that attention reads, query ratio, and number of heads.

        For the query ratio, see Layer.query_ratio. `context` is the input of attention's output layer, `hidden` the
        input of the encoder layer.
        """
        joined = self.input_of(at, self.input_of(at, context, "Reshape"), "Transpose", (0, 2, 1, 3)).producer()
        if joined is None or joined.op_type != "MatMul":
            self.refuse(f"{at}: attention has no GEMM of probabilities and values")
        probabilities, values = joined.inputs
        scores, scale = self.scores(at, self.input_of(at, probabilities, "Softmax"))
        operands = {"query": scores.inputs[0], "key": scores.inputs[1], "value": values}
        layers, counts, sources = {}, set(), {}
        for role, operand in operands.items():
            order = (0, 2, 3, 1) if role == "key" else (0, 2, 1, 3)
            split = self.input_of(at, operand, "Transpose", order)
            counts.add(split.shape[2] if split.shape is not None and len(split.shape) == 4 else None)
            layers[role], source = self.linear(at, f"the {role}", self.input_of(at, split, "Reshape"))
            if source is not hidden:
                self.refuse(f"{at}: the {role} does not read the input of the layer")
            assert operand is not None
            sources[role] = operand
        heads = counts.pop()
        width = layers["query"].bias.size
        if counts or not isinstance(heads, int) or {one.bias.size for one in layers.values()} != {hidden_size(hidden)}:
            self.refuse(f"{at}: query, key and value differ in size or in their number of heads")
        # The plugin divides the scores by sqrt(head size). The graph scales them in the query's weights or after the
        # GEMM. The ratio of the two scales is applied to the query layer.
        ratio = scale * math.sqrt(width // heads)
        query = Linear(layers["query"].weight * np.float32(ratio), layers["query"].bias * np.float32(ratio))
        return query, layers["key"], layers["value"], sources, ratio, heads

    def scores(self, at: str, value: ir.Value) -> tuple[ir.Node, float]:
        """Return the GEMM of query and key, and the scale that the graph multiplies its result by (1.0 if none).

        `value` is the input of the softmax: the scaled scores plus the mask.
        """
        add = value.producer()
        if add is None or add.op_type != "Add":
            self.refuse(f"{at}: no mask is added to the scores")
        masks = [part for part in add.inputs if part is not None and broadcasts_over_queries(part)]
        if len(masks) != 1:
            self.refuse(f"{at}: the tensor that is added to the scores is not a padding mask")
        self.mask(at, masks[0])
        product = next(part for part in add.inputs if part is not masks[0])
        node, scale = product.producer() if product else None, 1.0
        while node is not None and node.op_type in ("Mul", "Div"):
            factor, source = constant(node.inputs[1]), node.inputs[0]
            if factor is None or factor.size != 1 or source is None:
                break
            scale *= factor.item() if node.op_type == "Mul" else 1 / factor.item()
            node = source.producer()
        if node is None or node.op_type != "MatMul":
            self.refuse(f"{at}: the scores are not a GEMM of query and key")
        return node, scale

    def mask(self, at: str, value: ir.Value) -> None:
        """Refuse a tensor that is not a padding mask.

        A padding mask depends on attention_mask alone, is 0 at tokens, and at most MASK_VALUE at padded positions.
        """
        if value in self.masks:
            return
        feed = np.array([[1, 1, 1], [1, 0, 0]], np.int32)
        found = self.run([self.inputs["attention_mask"]], value, {"attention_mask": feed}).reshape(2, 3)
        if found[feed == 1].any() or (found[feed == 0] > MASK_VALUE).any():
            self.refuse(f"{at}: the tensor that is added to the scores is not a padding mask")
        self.masks.add(value)

    def head(self, hidden: ir.Value) -> tuple[ir.Node, ...]:
        """Return the nodes of the classification head, from the Gather of the first token to the logits."""
        readers = [use.node for use in hidden.uses()]
        first = constant(readers[0].inputs[1]) if len(readers) == 1 and readers[0].op_type == "Gather" else None
        if first is None or first.size != 1 or first.item() != 0 or first.ndim or axis(readers[0], 0) != 1:
            self.refuse("its head does not read the first token alone")
        found = {readers[0]}
        for node in self.model.graph:
            values = [value for value in node.inputs if value is not None and value.const_value is None]
            if any(value.producer() in found for value in values):
                found.add(node)
                if not all(value.producer() in found for value in values):
                    self.refuse("its head reads more than the first token")
        return tuple(node for node in self.model.graph if node in found)
