"""Nodes are placed alike in each form of a graph; layers of engines are placed by their inspector."""

from collections import Counter

import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.graph.fp16 import to_half
from toolchain.int8.coverage import optimised
from toolchain.profile.groups import GROUPS, NOWHERE, Place, place_layers, place_nodes

KINDS = ("distilbert", "bert", "roberta")

PARTS = {  # words in the names of modules, which the placing does not look at
    "embedding": ("embeddings",),
    "attention": ("attention", "sa_layer_norm"),
    "feed_forward": ("ffn", "intermediate", "output.dense", "output.LayerNorm", "output_layer_norm"),
    "head": ("classifier", "pooler"),
}


def by_name(name):
    return next(group for group, words in PARTS.items() if any(word in name for word in words))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", [lambda model: 0, to_half], ids=["fp32", "fp16"])
def test_nodes_have_the_places_of_their_modules(exported, kind, view):
    model = graph.load(exported[kind])
    view(model)
    found = place_nodes(model)
    named = {name: place for name, place in found.items() if name.startswith((kind, "classifier", "pre_classifier"))}
    named = {name: place for name, place in named.items() if ".to_" not in name}  # those lie between two modules
    assert len(named) > 20
    assert {name: place.group for name, place in named.items()} == {name: by_name(name) for name in named}
    numbered = {name: place.layer for name, place in named.items() if ".layer." in name}
    assert numbered == {name: int(name.split(".layer.")[1].split(".")[0]) for name in numbered}


@pytest.mark.parametrize("kind", KINDS)
def test_no_node_is_other_and_the_mask_belongs_to_no_layer(exported, kind):
    found = place_nodes(graph.load(exported[kind]))
    assert {place.group for place in found.values()} == {"embedding", "attention", "feed_forward", "head"}
    counted = Counter(map(str, found.values()))
    assert counted["attention.0"] == counted["attention.1"]
    assert 1 <= counted["attention"] <= 6


def test_nodes_of_the_optimised_graph_have_the_same_places(exported):
    before, after = place_nodes(graph.load(exported["bert"])), place_nodes(optimised(exported["bert"]))
    shared = before.keys() & after.keys()
    assert len(shared) > 30
    assert {name: before[name] for name in shared} == {name: after[name] for name in shared}
    assert NOWHERE not in after.values()


def test_a_graph_without_layers_is_other():
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("Relu", [x], name="relu")
    made = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": 18})
    assert place_nodes(ir.Model(made, ir_version=10)) == {"relu": Place("other")}


def test_layers_of_an_engine_have_the_places_of_their_gemms(exported):
    model = graph.load(exported["distilbert"])
    stem = "distilbert.transformer.layer"
    norm = "distilbert.transformer.layer.0.sa_layer_norm"

    def layer(name, *sources):
        return {"Name": name, "Metadata": "\x1e".join(f"[ONNX Layer: {source}]" for source in sources)}

    found = place_layers(
        [
            layer("__myl_Gemm_myl0_1", f"{stem}.0.attention.q_lin", f"{stem}.0.attention.k_lin"),
            layer("__myl_AddNormGemm", norm, "node_linear_3", f"{stem}.1.ffn.lin1"),  # the product decides
            layer("__myl_Norm", norm),
            layer("_gemm_everything", f"{stem}.0.attention.q_lin", f"{stem}.0.ffn.lin1"),
            layer("_gemm_all_queries", f"{stem}.0.attention.q_lin", f"{stem}.1.attention.q_lin"),
            {"Name": f"Reformatting CopyNode for Input Tensor 0 to {stem}.1.ffn.lin2"},
            {"Name": "{ForeignNode[node_embedding...classifier]}", "Metadata": "[ONNX Layer: node_embedding]"},
            {"Name": "__myl_Fc_myl0_7"},
        ],
        model,
    )
    assert list(map(str, found.values())) == [
        "attention.0",
        "feed_forward.1",
        "attention.0",
        "other",
        "attention",
        "feed_forward.1",
        "other",
        "other",
    ]


def test_the_groups_are_the_documented_ones():
    assert GROUPS == ("tokenise", "copy", "embedding", "attention", "feed_forward", "head", "other")
