"""Assign each node of a graph to a part of the encoder, by the LayerNorms and softmaxes of the graph.

Because only these two operators are used, it works for graphs in float32, in float16, with Q/DQ nodes, with plugins and
without padding, and for the graph that ONNX Runtime has optimised.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from toolchain.engine.inspector import Layer
from toolchain.engine.kernels import Kernel
from toolchain.graph.plugin_graph import QKV, SKIP_NORM

# The groups of a profile. `copy` is the assembly of the batch and its transfer to the device and back. `other` contains
# the nodes that belong to none of PARTS.
HOST = ("tokenise", "copy")
PARTS = ("embedding", "attention", "feed_forward", "head")
GROUPS = (*HOST, *PARTS, "other")

NORMS = {
    "LayerNormalization",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    SKIP_NORM,
}

# Operators that identify attention: each layer's attention has one of them, and no other part before the head has any.
MIXERS = {"Softmax", "Attention", "MultiHeadAttention", "QAttention", "PackedAttention", QKV}

COPIES = {"MemcpyToHost", "MemcpyFromHost"}
GEMMS = {"MatMul", "Gemm", "Conv", *MIXERS}

METADATA = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
SEPARATORS = re.compile(r"\.\.\.|[\s+(),{}\[\]]+")


@dataclass(frozen=True)
class Place:
    """The place of a node, layer or kernel: its group, and the number of its encoder layer.

    The number is None outside encoder layers, and for nodes that all layers share, such as those of the mask.
    """

    group: str
    layer: int | None = None

    def __str__(self) -> str:
        """Return the name of an NVTX range, such as attention.3 or embedding."""
        return self.group if self.layer is None else f"{self.group}.{self.layer}"


NOWHERE = Place("other")


def place_nodes(model: ir.Model) -> dict[str, Place]:
    """Return node name -> place.

    The graph is divided into pieces that end with a LayerNorm: a node is in the piece of the first LayerNorm that
    depends on it. A piece with a softmax is attention, and the next piece is the feed-forward part. The pieces before
    the first attention are the embedding. Nodes that no LayerNorm depends on are the head. In a graph without
    LayerNorms or softmaxes, all nodes are `other`.
    """
    nodes = list(model.graph)
    norms = [node for node in nodes if node.op_type in NORMS]
    ends = _ends(nodes, norms)
    mixed = {ends[node] for node in nodes if node.op_type in MIXERS}
    if not norms or not mixed:
        return dict.fromkeys(map(name_of, nodes), NOWHERE)
    pieces = list(_pieces(len(norms), mixed))
    shared = _before_the_layers(nodes)
    places = {}
    for node in nodes:
        place = pieces[ends[node]]
        if node.op_type in COPIES:
            place = Place("copy")
        elif node in shared:
            place = Place(place.group)
        places[name_of(node)] = place
    return places


def name_of(node: ir.Node) -> str:
    """Return the name of a node, or of its first output if the node has no name."""
    return str(node.name or node.outputs[0].name)


def _ends(nodes: list[ir.Node], norms: list[ir.Node]) -> dict[ir.Node, int]:
    """Return node -> index in `norms` of the first LayerNorm that is the node or depends on it; else `len(norms)`."""
    found = {node: number for number, node in enumerate(norms)}
    for node in reversed(nodes):  # from the last node, so that consumers come before producers
        if node not in found:
            readers = [use.node for value in node.outputs for use in value.uses()]
            found[node] = min((found[reader] for reader in readers), default=len(norms))
    return found


def _pieces(norms: int, mixed: Collection[int]) -> Iterator[Place]:
    """Yield the place of each piece: one for each of the `norms` LayerNorms, and one for the nodes after the last.

    `mixed` has the indices of the pieces with a softmax.
    """
    layer, before = -1, ""
    for number in range(norms + 1):
        if number in mixed and number < norms:
            layer += 1
            before = "attention"
        elif before == "attention":
            before = "feed_forward"
        else:
            before = "embedding" if layer < 0 else "head"
        yield Place(before, layer if before in ("attention", "feed_forward") else None)


def _before_the_layers(nodes: list[ir.Node]) -> set[ir.Node]:
    """Return the nodes that depend on a graph input but on no LayerNorm: the embedding, and the mask for all layers."""
    found: set[ir.Node] = set()
    normed: set[ir.Node] = set()
    for node in nodes:
        sources = [value for value in node.inputs if value is not None]
        makers = {value.producer() for value in sources}
        if node.op_type in NORMS or makers & normed:
            normed.add(node)
        elif makers & found or any(value.is_graph_input() for value in sources):
            found.add(node)
    return found


def place_layers(layers: list[Layer], model: ir.Model) -> dict[str, Place]:
    """Return name -> place of the layers of a TensorRT engine, by the ONNX nodes that each layer was made from.

    A layer has the place of its GEMMs or, without GEMMs, the most frequent place of its nodes. A layer with GEMMs of
    several groups, as in an engine of a single kernel, is `other`.
    """
    places, heavy = place_nodes(model), _heavy(model)
    return {str(layer["Name"]): _place_of(_sources(layer, places), heavy, places) for layer in layers}


def place_kernels(kernels: list[Kernel], model: ir.Model) -> list[Place]:
    """Return the place of each kernel, by the rule of `place_layers`."""
    places, heavy = place_nodes(model), _heavy(model)
    return [_place_of([name for name in one.nodes if name in places], heavy, places) for one in kernels]


def _heavy(model: ir.Model) -> set[str]:
    return {name_of(node) for node in model.graph if node.op_type in GEMMS}


def _sources(layer: Layer, known: Mapping[str, Place]) -> list[str]:
    """Return the names of the ONNX nodes that a layer was made from, as listed in the layer's metadata or name."""
    listed = METADATA.findall(str(layer.get("Metadata", "")))
    if "ForeignNode" in layer["Name"] and len(listed) < 2:
        return []  # a fused layer whose name and metadata give only its first node
    return [name for name in listed or SEPARATORS.split(layer["Name"]) if name in known]


def _place_of(names: list[str], heavy: Collection[str], places: Mapping[str, Place]) -> Place:
    decisive = [places[name] for name in names if name in heavy]
    if len({place.group for place in decisive}) > 1:
        return NOWHERE
    found = decisive or [places[name] for name in names]
    if not found:
        return NOWHERE
    groups = [place.group for place in found]
    group = max(groups, key=groups.count)
    numbers = {place.layer for place in found if place.group == group}
    return Place(group, numbers.pop() if len(numbers) == 1 else None)
