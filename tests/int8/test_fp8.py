"""FP8: numbers against PyTorch's E4M3, the whole graph near FP32, and how a bundle in FP8 is built and refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from toolchain import graph
from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.bundle.quantized import quantized_graph
from toolchain.cli import main
from toolchain.diagnose.explain import advise
from toolchain.graph.fp16 import to_half
from toolchain.int8.calibrate import calibrate, stream_activations
from toolchain.int8.coverage import cover
from toolchain.int8.quantize import FP8, TENSORRT, fp8_weight, quantize
from toolchain.recipe import Recipe

E4M3 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def fp8_bundle(typed_bundles, once):
    """A bundle in FP8 beside the one in INT8, from whose files it is built; read only."""

    def fill(folder):
        shutil.copytree(typed_bundles["int8"], folder, dirs_exist_ok=True)
        known = open_bundle(folder).manifest["recipe"]
        ranges = shutil.copyfile(folder / "calibration.json", folder.parent / "ranges.json")
        values = {"model": str(typed_bundles["int8"].parent / "away"), "data": known["data"], "precision": "fp8"}
        build(Recipe.make({**values, "output": str(folder), "calibration": str(ranges)}), engine=False)

    return once("fp8", fill)


def test_weights_are_the_nearest_numbers_of_e4m3():
    weight = np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32)
    numbers, scale = fp8_weight(weight, np.abs(weight).max())
    assert scale == np.float32(np.abs(weight).max() / 448)
    expected = torch.from_numpy(weight / scale).to(E4M3)
    assert (numbers.view(np.uint8) == expected.view(torch.uint8).numpy()).all()
    zeros, one = fp8_weight(np.zeros((2, 2), np.float32), 0)
    assert one == 1
    assert not zeros.astype(np.float32).any()


def test_onnx_runtime_rounds_and_saturates_activations_as_pytorch_does(exported, tokens_of):
    model, tokens = graph.load(exported["distilbert"]), tokens_of("distilbert", 6)
    ranges = calibrate(graph.load(exported["distilbert"]), tokens_of("distilbert", 40), method="percentile-99")
    assert quantize(model, ranges, FP8)["linear"] == 12
    assert all(one.tensorrt for one in cover(model) if one.kind != "head")
    pairs = [node for node in graph.nodes(model, "QuantizeLinear") if node.inputs[0].producer() is not None]
    names = {node.inputs[0].name: node for node in pairs}
    outputs = {name: f"{name}.fp8.dequantized" for name in names}
    saturated = 0
    for values in stream_activations(model, [*outputs, *outputs.values()], tokens, text=""):
        for name, dequantized in outputs.items():
            scale = graph.constant(names[name].inputs[1]).item()
            scaled = torch.from_numpy(values[name] / np.float32(scale)).clamp(-448, 448)
            expected = scaled.to(E4M3).float().numpy() * np.float32(scale)
            assert values[dequantized] == pytest.approx(expected, rel=1e-6, abs=0)
            saturated += int((np.abs(values[name]) > 448 * scale).sum())
    assert saturated > 0
    scales = {}
    for node in graph.nodes(model, "MatMul"):
        weight = node.inputs[1].producer()
        if graph.constant(weight.inputs[0]) is not None:
            scales.setdefault(node.inputs[0].name, set()).add(graph.constant(weight.inputs[1]).item())
    assert {len(found) for found in scales.values()} == {1}  # those of query, key and value are equal
    to_half(model)
    kinds = {str(node.inputs[0].dtype) for node in graph.nodes(model, "DequantizeLinear")}
    assert kinds == {"FLOAT8E4M3FN"}


def test_a_bundle_in_fp8_is_evaluated_verified_and_explained(fp8_bundle, capsys):
    manifest = open_bundle(fp8_bundle).manifest
    assert manifest["precision"] == "fp8"
    assert [name for name in manifest["artefacts"] if ".int8." in name] == []
    assert manifest["steps"]["quantize"]["record"]["views"].keys() == {"model.fp8.onnx"}
    assert main(["verify", str(fp8_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp8"
    assert main(["explain", str(fp8_bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["share_of_macs"]["tensorrt"] > 0.9
    assert found["share_of_macs"]["on_this_cpu"] == 0
    assert found["speed"] is None
    assert "FP8 runs on GPUs of compute capability 8.9 or later" in found["advice"][0]
    assert "no CPU has kernels for FP8" in {one["reason"] for one in found["products"]}
    noisy = [{**one, "snr_db": 5.0} for one in found["products"]]
    assert "--keep excludes GEMMs" in advise({**found, "products": noisy})[-1]  # tune is for INT8 alone
    assert main(["eval", str(fp8_bundle), "--backend", "ort", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["precision"], result["artefact"]["file"]) == ("fp8", "model.fp8.onnx")
    assert result["agreement"]["max_abs_logit_difference"] > 0


def test_residual_additions_stay_in_float16_whatever_the_calibration_chose_for_int8(fp8_bundle):
    assert quantized_graph(fp8_bundle, FP8, keep=None, residual="int8")[1]["residual"] == 0
    assert quantized_graph(fp8_bundle, TENSORRT, keep=None, residual="int8")[1]["residual"] > 0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            ["--target", "t4"],
            4,
            "--target sm75: compute capability 7.5 has no FP8 GEMMs, which need 8.9 (Ada) or later.",
        ),
        (["--target", "t4", "--backend", "ort"], 4, "--target sm75: compute capability 7.5 has no FP8"),
        (["--target", "l4", "--backend", "ort"], 2, "--target l4: only TensorRT-RTX builds for other GPUs"),
        (["--target", "l4,a10"], 4, "--target sm86: compute capability 8.6 has no FP8"),
        (["--attention", "plugin", "--backend", "trt"], 2, "--attention plugin: the plugins compute in FP16 or INT8"),
        (["--residual", "int8"], 2, "--residual int8: it cannot be used with --precision fp8. Give --residual float16"),
    ],
)
def test_what_has_no_fp8_is_refused_before_any_work(fp8_bundle, options, code, message, capsys):
    if "--target" in options and "--backend" not in options:
        pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")
        options = [*options, "--backend", "trt-rtx"]
    assert main(["build", str(fp8_bundle), *options]) == code
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_nvidias_compiler_computes_an_encoder_in_fp8_for_ada_and_blackwell(fp8_bundle, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")
    place = shutil.copytree(fp8_bundle, tmp_path / "b")
    shape = ("--batch-size", "4", "--seq-len", "32")
    assert main(["build", str(place), "--backend", "trt-rtx", "--target", "sm89,sm120", *shape, "-q"]) == 0
    plans = sorted((place / "plans").iterdir())
    assert [one.name[:4] for one in plans] == ["sm12", "sm89"]
    for plan in plans:
        record = json.loads((plan / "plan.json").read_text())
        assert record["precision"] == "fp8"
        assert record["not_as_asked"] == []
        assert record["layers"]["fp8_products"] > 8
