"""Verification fails an artefact with a fault and names the case."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.cli import main
from toolchain.diagnose.probe import open_probe_graph
from toolchain.diagnose.verify import judge, verify
from toolchain.errors import GateError, InputError, UsageError
from toolchain.graph import add_initializer
from toolchain.graph.fp16 import to_half
from toolchain.runtimes import open_runtime


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, build_tiny):
    target = tmp_path_factory.mktemp("verify") / "bundle"
    build_tiny(target, calib_method="minmax")
    return target


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx", "model.int8.cpu.onnx"])
def test_sound_artefacts_pass_every_case(bundle, file):
    found = verify(open_probe_graph(bundle, {"file": file}))
    assert [case["name"] for case in found["cases"] if not case["passed"]] == []
    names = {case["name"] for case in found["cases"]}
    assert {"in batches of 7", "padded to 128", "beside a row of padding", "a row of 128 tokens"} <= names
    assert {"a row of an empty text", "a row of unknown words", "an id beyond the vocabulary"} <= names
    assert found["cases"][-1]["name"] == "parity with torch-fp32 (root mean square)"
    json.dumps(found, allow_nan=False)
    assert found["halves"] == (file == "model.int8.onnx")


@pytest.mark.parametrize("choice", [{"precision": "bf16"}, *({"attention": name} for name in ("eager", "packed"))])
def test_pytorch_in_another_precision_or_attention_passes_every_case(bundle, choice):
    found = verify(open_probe_graph(bundle, {"backend": "torch", "device": "cpu", **choice}))
    assert [case["name"] for case in found["cases"] if not case["passed"]] == []
    parity = found["cases"][-1]
    assert parity["name"] == "parity with torch-fp32 (root mean square)"
    assert (parity["difference"] > 1e-6) == ("precision" in choice)


def test_the_fp32_reference_itself_has_no_parity_case(bundle):
    found = verify(open_probe_graph(bundle, {"backend": "torch", "device": "cpu"}))
    assert not [case for case in found["cases"] if "parity" in case["name"]]


def test_a_backend_without_a_graph_cannot_be_explained(bundle):
    for backend in ("torch", "service"):
        with pytest.raises(UsageError, match=f"--backend {backend}: this backend runs no file"):
            open_probe_graph(bundle, {"backend": backend}, graphs_only=True)


def spoil(bundle, folder, change):
    """Return a bare graph, beside a tokenizer, that `change` has spoilt."""
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(bundle / name, folder)
    model = graph.load(bundle / "model.onnx")
    change(model)
    graph.save(model, folder / "spoilt.onnx")
    return folder / "spoilt.onnx"


def without_mask(model):
    """Ignore the mask, as a wrong fusion does: padding then changes every row."""
    mask = next(value for value in model.graph.inputs if value.name == "attention_mask")
    uses = list(mask.uses())
    ones = ir.node("Equal", [mask, mask])
    cast = ir.node("Cast", [ones.outputs[0]], {"to": int(ir.DataType.INT32)})
    model.graph.insert_before(model.graph[0], [ones, cast])
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])


def mixing_rows(model):
    """Add the batch's mean to the logits: a row then depends on its neighbours."""
    logits = model.graph.outputs[0]
    mean = ir.node("ReduceMean", [logits, add_initializer(model, "axis", np.array([0]))])
    total = ir.node("Add", [logits, mean.outputs[0]])
    total.outputs[0].shape, total.outputs[0].type = logits.shape, logits.type
    model.graph.extend([mean, total])
    logits.name, total.outputs[0].name = "before", "logits"
    model.graph.outputs[0] = total.outputs[0]


@pytest.mark.parametrize(("change", "first"), [(without_mask, "padded to 64"), (mixing_rows, "in batches of 2")])
def test_the_first_failing_case_is_named(bundle, tmp_path, change, first):
    file = spoil(bundle, tmp_path / "spoilt", change)
    found = verify(open_probe_graph(file, {}))
    with pytest.raises(GateError, match=rf"spoilt\.onnx: (?:{first}|in batches of 2|padded to 16): logits differ"):
        judge(found)
    failed = {case["name"] for case in found["cases"] if not case["passed"]}
    assert first in failed
    assert ("in another order" in failed) == (change is mixing_rows) or change is without_mask


def test_a_bare_graph_without_a_tokenizer_is_tried_on_random_ids(bundle, tmp_path):
    shutil.copy(bundle / "model.int8.onnx", tmp_path / "bare.onnx")
    probe = open_probe_graph(tmp_path / "bare.onnx", {})
    assert (probe.precision, "random token ids" in probe.rows) == ("int8", True)
    assert verify(probe)["passed"]


def test_logits_that_are_not_finite_fail_and_the_json_stays_valid(bundle, tmp_path, capsys):
    def broken(model):
        head = list(graph.nodes(model, "Gemm"))[-1]
        head.replace_input_with(1, add_initializer(model, "nan", np.full((2, 64), np.nan, np.float32)))

    file = spoil(bundle, tmp_path / "nan", broken)
    assert main(["verify", str(file), "--json"]) == 3
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert {case["note"] for case in found["cases"] if not case["passed"]} >= {"not finite"}
    assert main(["explain", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert "gives NaN or infinity" in found["advice"][0]


def test_activations_beyond_float16_fail_although_onnx_runtime_computes_them_in_float32(bundle, tmp_path):
    def overflowing(model):
        norm = next(graph.nodes(model, "LayerNormalization"))
        value, factors = norm.inputs[0], (1e4, 1e2)
        for index, factor in enumerate(factors):
            mul = ir.node("Mul", [value, add_initializer(model, f"factor{index}", np.array(factor, np.float32))])
            mul.outputs[0].name, mul.outputs[0].dtype = f"scaled{index}", ir.DataType.FLOAT
            model.graph.insert_before(norm, mul)
            value = mul.outputs[0]
        norm.replace_input_with(0, value)
        to_half(model)

    file = spoil(bundle, tmp_path / "overflowing", overflowing)
    with open_runtime("ort", file, device="cpu") as infer:
        assert np.isfinite(infer(open_probe_graph(file, {}).tokens.batch(np.arange(4)))).all()
    found = verify(open_probe_graph(file, {}))
    assert {case["note"] for case in found["cases"] if not case["passed"]} >= {"not finite"}
    with pytest.raises(GateError, match="not finite"):
        judge(found)


def test_a_length_beyond_the_model_is_one_line(bundle, tmp_path, capsys):
    file = spoil(bundle, tmp_path / "long", lambda model: None)
    assert main(["verify", str(file), "--max-length", "5000"]) == 1
    assert "ONNX Runtime cannot run it on this batch" in capsys.readouterr().err


def test_a_graph_that_is_not_an_encoder_is_refused(tmp_path):
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]))
    node = ir.node("Identity", [value])
    node.outputs[0].name, node.outputs[0].type = "y", value.type
    model = ir.Model(ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 18}, name="g"), ir_version=10)
    graph.save(model, tmp_path / "g.onnx")
    with pytest.raises(InputError, match=r"its inputs are x, not those of an encoder"):
        open_probe_graph(tmp_path / "g.onnx", {})


def test_the_command_line(bundle, tmp_path, capsys):
    assert main(["verify", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    assert main(["verify", str(bundle / "model.int8.onnx"), "-q"]) == 0
    assert main(["verify", str(spoil(bundle, tmp_path / "s", mixing_rows))]) == 3
    shown = capsys.readouterr()
    assert "FAILED" in shown.out
    assert "in batches of 2: logits differ" in shown.err
    assert main(["verify", str(tmp_path / "none.onnx")]) == 1
    Path(tmp_path / "no.onnx").write_bytes(b"no graph")
    assert main(["verify", str(tmp_path / "no.onnx")]) == 1
