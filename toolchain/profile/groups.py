"""Which part of an encoder a node belongs to, read off the graph's LayerNorms and softmaxes.

Only these two are looked at, so it holds for a graph in float32, in float16, with Q/DQ nodes, packed around plugins,
and for the one that ONNX Runtime makes of it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from toolchain.graph.plugin_graph import QKV, SKIP_NORM

HOST = ("tokenise", "copy")
PARTS = ("embedding", "attention", "feed_forward", "head")
GROUPS = (*HOST, *PARTS, "other")
"""What time and energy are told by. `copy` is the batch's assembly and its way to the device and back; `other` is what
cannot be placed."""

NORMS = {
    "LayerNormalization",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    SKIP_NORM,
}
MIXERS = {"Softmax", "Attention", "MultiHeadAttention", "QAttention", "PackedAttention", QKV}
"""What stands in each attention and nowhere else before the head."""

COPIES = {"MemcpyToHost", "MemcpyFromHost"}
PRODUCTS = {"MatMul", "Gemm", "Conv", *MIXERS}

METADATA = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
SEPARATORS = re.compile(r"\.\.\.|[\s+(),{}\[\]]+")


@dataclass(frozen=True)
class Place:
    """A group, and the encoder layer where there is one: what all layers share, such as the mask, has none."""

    group: str
    layer: int | None = None

    def __str__(self) -> str:
        """Return attention.3, or the group alone: the name of an NVTX range."""
        return self.group if self.layer is None else f"{self.group}.{self.layer}"


NOWHERE = Place("other")


def place_nodes(model: ir.Model) -> dict[str, Place]:
    """Return node name -> its place.

    A node belongs to the first LayerNorm that it leads to. What ends with a LayerNorm and holds a softmax is an
    attention, what follows it a feed-forward part, what comes before the first the embedding, and what leads to no
    LayerNorm the head. A graph without LayerNorms or softmaxes is no encoder: all of it is `other`.
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
    """Return a node's name, or that of its first output if it has none."""
    return str(node.name or node.outputs[0].name)


def _ends(nodes: list[ir.Node], norms: list[ir.Node]) -> dict[ir.Node, int]:
    """Return for each node the number of the first LayerNorm that it leads to, or is; their count if to none."""
    found = {node: number for number, node in enumerate(norms)}
    for node in reversed(nodes):  # readers come first
        if node not in found:
            readers = [use.node for value in node.outputs for use in value.uses()]
            found[node] = min((found[reader] for reader in readers), default=len(norms))
    return found


def _pieces(norms: int, mixed: Collection[int]) -> Iterator[Place]:
    """Yield the place of what ends with each LayerNorm, and of what comes behind the last."""
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
    """Return the nodes that depend on the batch and on no LayerNorm: embeddings, and the mask that all layers share."""
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


def place_layers(layers: list[dict[str, Any]], model: ir.Model) -> dict[str, Place]:
    """Return name -> place of an engine's layers, as its inspector lists them, by the ONNX nodes that they are made of.

    A layer with matrix products of one place is there, one without any where most of its nodes are. One that joins
    products of two groups, as an engine of a single kernel does, is `other`.
    """
    places = place_nodes(model)
    heavy = {name_of(node) for node in model.graph if node.op_type in PRODUCTS}
    return {str(layer["Name"]): _place_of(_sources(layer, places), heavy, places) for layer in layers}


def _sources(layer: dict[str, Any], known: Mapping[str, Place]) -> list[str]:
    """Return the ONNX nodes that a layer is made of: by its metadata, or else by its name."""
    listed = METADATA.findall(str(layer.get("Metadata", "")))
    if "ForeignNode" in layer["Name"] and len(listed) < 2:
        return []  # its name and metadata are but the first node of many
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
