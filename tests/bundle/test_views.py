"""Views are made when they are asked for, compared with their graph, and kept up to date from then on."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.bundle import open_bundle, views
from toolchain.bundle.build import build
from toolchain.bundle.views import VIEWS, beyond_float16, open_graph
from toolchain.errors import GateError, UsageError
from toolchain.graph.common_scale import UNSCALED
from toolchain.graph.gemms import linear_layers
from toolchain.recipe import Recipe
from toolchain.runtimes.half_range import HalfRange
from toolchain.workflow import evaluate

FILES = {
    "fp32": ["model.fp32.trt8.onnx"],
    "fp16": ["model.fp16.trt8.onnx"],
    "int8": ["model.int8.rtx.onnx", "model.int8.trt8.onnx"],
}


@pytest.fixture
def recipe(tiny_distilbert, sentences, begun, tmp_path):
    """Return a recipe of a precision, whose other steps were run before."""

    def make(precision, **changes):
        values = {"model": str(tiny_distilbert), "data": str(sentences), "calib_samples": 20}
        target = tmp_path / precision
        if not target.exists():
            begun(precision, target)
        return Recipe.make(values | {"precision": precision, "output": str(target), **changes})

    return make


@pytest.mark.parametrize("precision", FILES)
def test_views_are_made_when_asked_for_and_kept_from_then_on(recipe, precision):
    done = build(recipe(precision, views="rtx,trt8"), engine=False)
    assert done["done"] == list(dict.fromkeys(VIEWS[file].name for file in FILES[precision]))
    assert {file for file in done["artefacts"] if file in VIEWS} == set(FILES[precision])
    for name in done["done"]:
        assert done[name]["difference"]["max_abs_logit_difference"] < 0.05 * done[name]["difference"]["largest_logit"]
        assert done[name]["passes"]["first_token"] > 20
    again = build(recipe(precision), engine=False)
    assert again["up_to_date"]
    assert again["artefacts"] == done["artefacts"]


def test_a_view_follows_its_graph(recipe):
    build(recipe("int8", views="rtx"), engine=False)
    done = build(recipe("int8", residual="int8"), engine=False)
    assert done["done"] == ["quantize", "rtx"]
    assert done["rtx"]["passes"]["common_scale"] == 12


def test_a_view_that_the_bundle_lacks_is_made_in_memory(recipe):
    place = Path(build(recipe("int8", keep="*.ffn.lin1"), engine=False)["bundle"])
    made = open_graph(open_bundle(place), "model.int8.rtx.onnx")
    assert len(linear_layers(made)) == 2  # those that were kept
    build(recipe("int8", keep="*.ffn.lin1", views="rtx"), engine=False)
    bundle = open_bundle(place)
    assert graph.serialised(open_graph(bundle, "model.int8.rtx.onnx")) == graph.serialised(made)


@pytest.mark.parametrize("file", FILES["int8"])
def test_a_view_is_evaluated_like_any_graph(recipe, file):
    done = build(recipe("int8", views="rtx,trt8"), engine=False)
    result = evaluate({"backend": "ort", "file": file}, bundle=Path(done["bundle"]), tell=lambda line: None)
    assert (result["artefact"]["file"], result["precision"]) == (file, "int8")
    assert result["agreement"]["label_agreement"] >= 0.9


def test_other_logits_are_refused(recipe, monkeypatch):
    right = VIEWS["model.int8.rtx.onnx"]

    def broken(model):
        passes = right.change(model)
        norm = next(graph.nodes(model, "LayerNormalization"))
        norm.replace_input_with(1, graph.add_initializer(model, "other", np.full(64, 9, np.float32)))
        return passes

    monkeypatch.setitem(VIEWS, "model.int8.rtx.onnx", dataclasses.replace(right, change=broken))
    with pytest.raises(GateError, match=r"model\.int8\.rtx\.onnx: its logits differ from those of model\.int8\.onnx"):
        build(recipe("int8", views="rtx"), engine=False)


GEMM = "distilbert.transformer.layer.0.ffn.lin2"


@pytest.mark.parametrize(("file", "kept"), [("model.int8.rtx.onnx", ir.DataType.FLOAT), ("model.int8.trt8.onnx", None)])
def test_raw_sums_beyond_float16_stay_in_float32_and_are_recorded(recipe, monkeypatch, file, kept):
    name = f"{GEMM}.output{UNSCALED if kept else ''}"
    monkeypatch.setattr(views, "measure_range", lambda model, tokens: HalfRange({name: 4e4, "other": 1e4}, {}))
    done = build(recipe("int8", views=VIEWS[file].name), engine=False)
    assert done[VIEWS[file].name]["beyond_float16"] == [{"tensor": name, "amax": 4e4}]
    bundle = open_bundle(Path(done["bundle"]))
    assert name in beyond_float16(bundle.manifest["steps"])
    types = {str(node.name): node.outputs[0].dtype for node in graph.nodes(open_graph(bundle, file), "MatMul")}
    assert types[GEMM] == ir.DataType.FLOAT
    assert (set(types.values()) == {ir.DataType.FLOAT}) == (kept is None)  # TensorRT 8 gets a float32 graph


def test_a_view_that_is_not_finite_in_halves_is_refused_by_its_node(recipe, monkeypatch):
    """Also where the logits are finite, because a Q node follows."""
    right = VIEWS["model.int8.rtx.onnx"]

    def broken(model):
        passes = right.change(model)
        (product,) = [node for node in graph.nodes(model, "Mul") if node.outputs[0].name == f"{GEMM}.output"]
        huge = np.full(64, 6e4, np.float32)
        product.replace_input_with(1, graph.add_initializer(model, "huge", huge))
        return passes

    monkeypatch.setitem(VIEWS, "model.int8.rtx.onnx", dataclasses.replace(right, change=broken))
    monkeypatch.setattr(views, "measure_range", lambda model, tokens: HalfRange({}, {}))
    with pytest.raises(
        GateError, match=r"model\.int8\.rtx\.onnx: node .* computes values up to .*Build with --precision"
    ):
        build(recipe("int8", views="rtx"), engine=False)


def test_an_unknown_view_is_refused(recipe):
    with pytest.raises(UsageError, match=r"--views trt9: there is no such view\. Choose from rtx, trt8\."):
        build(recipe("int8", views="rtx,trt9"), engine=False)
