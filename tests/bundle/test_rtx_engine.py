"""Plans of TensorRT-RTX by its real compiler: built on this machine for others, and refused before they are read."""

import importlib
import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from toolchain import graph
from toolchain.bundle import open_bundle
from toolchain.bundle.engine_step import refuse_float_gemms
from toolchain.cli import main
from toolchain.engine.plan import Tag, check_plan, read_plan
from toolchain.errors import GateError, InputError, MachineError
from toolchain.graph.fp16 import to_half
from toolchain.graph.gemms import linear_layers

pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")

VERSION = "1.7.1.116"
T4 = Tag(75, VERSION, "trt-rtx")
RTX = ("--backend", "trt-rtx")
RTX_GRAPH = "model.int8.rtx.onnx"


@pytest.fixture(scope="module")
def built(typed_bundles, once):
    """The INT8 bundle with plans for a T4 and an A10; read only."""

    def fill(folder):
        shutil.copytree(typed_bundles["int8"], folder, dirs_exist_ok=True)
        assert main(["build", str(folder), *RTX, "--target", "t4,a10", "--batch-size", "1,4,16", "-q"]) == 0

    return once("rtx", fill)


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "b")


def test_a_plan_is_made_for_each_target(built):
    manifest = open_bundle(built).manifest
    for tag in (T4, Tag(86, VERSION, "trt-rtx")):
        record = json.loads((built / tag.folder / "plan.json").read_text())
        assert (record["backend"], record["sm"], record["tensorrt"]) == ("trt-rtx", tag.sm, VERSION)
        assert (record["gpu"], record["cuda_driver"], record["timing_cache_sha256"]) == (None, None, None)
        assert record["profiles"] == [{"batch": [1, 4, 16], "length": [1, 64, 128]}]
        assert manifest["steps"][tag.folder]["record"] == record
        layers = json.loads((built / tag.folder / "layers.json").read_text())
        assert layers["compiler"] == f"TensorRT-RTX {VERSION}"
        assert record["layers"]["int8_products"] == 11  # query, key and value of the first layer are one
        assert record["graph"] == {"file": RTX_GRAPH, "sha256": manifest["artefacts"][RTX_GRAPH]}
        assert record["not_as_asked"] == []
        assert check_plan(built / tag.folder / "model.plan", tag) == record


def test_the_same_build_again_is_skipped_and_another_target_is_added(copy, capsys):
    options = ("--batch-size", "1,4,16", "--json")
    assert main(["build", str(copy), *RTX, "--target", "sm75,l4", *options]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["skipped"][-1], done["done"]) == (T4.folder, [f"plans/sm89-rtx{VERSION}"])
    assert [one["sm"] for one in done["engines"]] == [75, 89]


def test_what_the_compiler_did_not_do_is_said(copy, monkeypatch, capsys):
    from toolchain.bundle import engine_step

    fault = "layer.0.ffn.lin1: not in INT8, because its kernel multiplies int8 by fp16"
    monkeypatch.setattr(engine_step, "judge", lambda kernels, asked: [fault])
    assert main(["build", str(copy), *RTX, "--target", "l4"]) == 0
    assert "the engine differs from the graph: layer.0.ffn.lin1: not in INT8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "h100"], "--target h100: TensorRT-RTX does not compile for this GPU. Choose one or more of t4"),
        (["--target", "t4", "--version-compatible"], "--version-compatible: it cannot be used with TensorRT-RTX"),
        (["--target", "t4", "--attention", "plugin"], "--attention: it cannot be used with TensorRT-RTX"),
        (
            ["--target", "t4", "--attention", "plugin", "--calibrator", "tensorrt"],
            "--calibrator: it cannot be used with TensorRT-RTX",
        ),
        (
            ["--target", "a10", "--hardware-compatible", "ampere-plus"],
            "--hardware-compatible: it cannot be used with TensorRT-RTX",
        ),
        (["--target", "t4", "--buckets", "16,128"], "--buckets: it cannot be used with TensorRT-RTX"),
        (["--target", "t4", "--optimization-level", "5"], "--optimization-level: it cannot be used with TensorRT-RTX"),
        ([], "--backend trt-rtx: no --target was given"),
    ],
)
def test_what_it_lacks_is_refused_in_one_line_before_any_work(built, capsys, options, message):
    before = (built / "bundle.json").stat().st_mtime_ns
    assert main(["build", str(built), *RTX, *options]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert message in said.err
    assert (built / "bundle.json").stat().st_mtime_ns == before


def test_a_target_belongs_to_this_backend_and_float32_to_later_gpus(typed_bundles, capsys):
    assert main(["build", str(typed_bundles["int8"]), "--backend", "trt", "--target", "t4"]) == 2
    assert "--target t4: only TensorRT-RTX builds for other GPUs" in capsys.readouterr().err
    assert main(["build", str(typed_bundles["fp32"]), *RTX, "--target", "t4"]) == 2
    assert "--target sm75: TensorRT-RTX computes no float32 GEMM on Turing" in capsys.readouterr().err


def test_without_the_extra_the_graphs_are_kept_and_the_exit_code_is_4(copy, monkeypatch, capsys):
    real = importlib.import_module

    def without(name, *rest):
        if name == "tensorrt_rtx_bindings":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    assert main(["build", str(copy), *RTX, "--target", "l4", "-q"]) == 4
    said = capsys.readouterr().err
    assert "TensorRT-RTX: it is not installed. Run pip install 'encoder-toolchain[rtx]'" in said
    assert said.count("\n") == 1
    assert open_bundle(copy)


@pytest.mark.parametrize("command", ["eval", "verify", "profile", "serve"])
def test_without_a_gpu_no_command_runs_a_plan(built, capsys, command):
    assert main([command, str(built), *RTX]) == 4
    said = capsys.readouterr().err
    assert said.splitlines()[-1].count(". ") >= 1
    assert "Traceback" not in said


def test_a_truncated_plan_is_refused_by_its_digest(copy, capsys):
    plan = copy / T4.folder / "model.plan"
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(InputError, match="changed since it was built, so this executable code is not loaded"):
        read_plan(plan, check_plan(plan, T4))
    assert main(["eval", str(copy), *RTX]) == 1
    assert "model.plan: changed since it was built" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("here", "built_for"),
    [
        (Tag(86, VERSION, "trt-rtx"), "compute capability 7.5 with TensorRT-RTX 1.7.1.116"),
        (Tag(75, "1.8.0.1", "trt-rtx"), "compute capability 7.5 with TensorRT-RTX 1.7.1.116"),
        (Tag(75, "10.16.1.11", "trt"), "compute capability 7.5 with TensorRT-RTX 1.7.1.116"),
    ],
)
def test_a_plan_for_another_gpu_version_or_release_is_refused(built, here, built_for):
    with pytest.raises(MachineError) as refused:
        check_plan(built / T4.folder / "model.plan", here)
    assert f"built for {built_for}; this machine has {here}. Build one" in str(refused.value)


@pytest.mark.parametrize("choice", [RTX, ("--file", f"{T4.folder}/model.plan")])
def test_a_plan_is_explained_from_its_record(built, capsys, choice):
    assert main(["explain", str(built), *choice, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    record = json.loads((built / T4.folder / "plan.json").read_text())
    assert (found["backend"], found["sm"], found["layers"]) == ("trt-rtx", 75, record["layers"])
    assert found["advice"][-1].endswith(f"toolchain explain {built} --target sm75.")
    assert main(["explain", str(built), *choice]) == 0
    assert "TensorRT-RTX 1.7.1.116" in capsys.readouterr().out


def test_a_plan_that_is_not_there_is_not_explained_and_the_next_step_is_named(built, typed_bundles, capsys):
    for bundle, options, code, message in (
        (typed_bundles["int8"], RTX, 1, "has no engine of TensorRT-RTX. Build one: toolchain build"),
        (built, ("--backend", "trt", "--file", f"{T4.folder}/model.plan"), 2, "not a plan of TensorRT. Leave out"),
        (built, ("--file", "plans/sm99-rtx1/model.plan"), 1, "has no plans/sm99-rtx1/model.plan"),
    ):
        assert main(["explain", str(bundle), *options]) == code
        assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_model_with_activations_of_1e5_is_refused_for_a_t4_on_the_command_line(
    tiny_bert, sentences, tmp_path, capsys, precision
):
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    for part in ("intermediate", "output"):
        weights[f"bert.encoder.layer.0.{part}.dense.weight"] *= 600
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    choices = ("--precision", precision, "--calib-samples", "20", "-o", str(tmp_path / "b"), "-q")
    assert main(["build", "-m", str(model), "--data", str(sentences), *RTX, "--target", "t4", *choices]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"model.{precision}" in said
    assert "stays in float32, and TensorRT-RTX has no float32 GEMM for sm75" in said
    assert "--target sm86" in said
    assert not list((tmp_path / "b").rglob("model.plan"))
    assert open_bundle(tmp_path / "b")
    assert main(["explain", str(tmp_path / "b"), "--target", "t4"]) == 3
    assert "has no float32 GEMM for sm75" in capsys.readouterr().err


def test_a_gemm_beyond_float16_is_refused_for_a_t4_alone(typed_bundles):
    model = graph.load(typed_bundles["fp32"] / "model.onnx")
    to_half(model, [str(linear_layers(model)[5].outputs[0].name)])
    expected = r"stays in float32, and TensorRT-RTX has no float32 GEMM for sm75 \(number of such GEMMs: 1\)"
    with pytest.raises(GateError, match=expected):
        refuse_float_gemms(model, "model.fp16.onnx", 75)
    refuse_float_gemms(model, "model.fp16.onnx", 86)
