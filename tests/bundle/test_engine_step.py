"""Engines by the real command line, on stand-ins for TensorRT and PyCUDA: both roads, both majors, every refusal."""

import hashlib
import json
import re
import shutil

import pytest

from toolchain import graph
from toolchain.bundle import open_bundle
from toolchain.bundle.build import build
from toolchain.bundle.engine_step import warn_of_sums
from toolchain.recipe import Recipe

TEN, ELEVEN = "10.16.1.11", "11.4.0.106"
SMALL = ("--batch-size", "1,4,16")


def files(bundle):
    """Path -> digest of all that is in a bundle."""
    return {
        str(path.relative_to(bundle)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundle.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def make(toolchain, tmp_path):
    """Return what builds an engine of a bundle; the caller's folder holds timing caches."""

    def run(bundle, *options, **chosen):
        return toolchain("build", bundle, "--backend", "trt", *options, cwd=tmp_path, **chosen)

    return run


def record_of(bundle, tag="sm75-trt10.16.1.11"):
    return json.loads((bundle / "plans" / tag / "plan.json").read_text())


@pytest.mark.parametrize("version", [TEN, ELEVEN])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_typed_graph_becomes_a_plan_in_both_majors(make, bundle_of, precision, version):
    bundle = bundle_of(precision)
    done = make(bundle, "--json", "--buckets", "16,128", "--workspace-mb", "64", version=version)
    assert done.returncode == 0, done.stderr
    said, record = json.loads(done.stdout)["engine"], record_of(bundle, f"sm75-trt{version}")
    assert said == record
    assert (record["sm"], record["tensorrt"], record["gpu"], record["precision"]) == (
        75,
        version,
        "Tesla T4",
        precision,
    )
    assert record["profiles"] == [
        {"batch": [1, 32, 128], "length": [1, 16, 16]},
        {"batch": [1, 32, 128], "length": [17, 128, 128]},
    ]
    options = record["options"]
    assert (options["attention"], options["workspace_mb"], options["hardware_compatible"]) == ("native", 64, "none")
    assert record["plan_sha256"] == files(bundle)[record["file"]]
    assert record["graph"]["sha256"] == files(bundle)[record["graph"]["file"]]
    assert (record["layout"], record["inputs"]) == ("padded", ["input_ids", "attention_mask"])
    assert (record["layers"]["int8_products"] > 12) == (precision == "int8")
    assert record["layers"]["fused_attention"] == (0 if precision == "fp32" else 2)


@pytest.mark.parametrize(
    ("precision", "calibrator", "chosen", "plugins"),
    [
        ("fp16", "own", {"version": TEN}, ["5", "6"]),
        ("fp16", "own", {"version": ELEVEN}, ["5", "6"]),
        ("fp16", "own", {"fault": "v2_plugins"}, ["2", "2"]),
        ("int8", "own", {}, ["5", "6"]),
        ("int8", "tensorrt", {"fault": "v2_plugins"}, ["2", "2"]),
    ],
)
def test_plugins_become_a_plan(make, bundle_of, precision, calibrator, chosen, plugins):
    bundle = bundle_of(precision)
    done = make(bundle, *SMALL, "--attention", "plugin", "--calibrator", calibrator, "--json", **chosen)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)["engine"]
    assert record["layout"] == "packed"
    assert record["inputs"] == ["input_ids", "position_ids", "cu_seqlens", "max_seqlen"]
    assert list(record["plugins"].values()) == plugins
    assert (record["layers"]["int8_products"] > 0) == (precision == "int8")


@pytest.mark.parametrize(("amax", "warned"), [(70_000.0, True), (None, False)])
def test_integer_sums_beyond_float16_are_logged(caplog, amax, warned):
    view = {"target": "tensorrt", **({"large_sums": [{"tensor": "layer.0.lin2", "amax": amax}]} if amax else {})}
    with caplog.at_level("WARNING"):
        warn_of_sums("model.int8.onnx", {"quantize": {"record": {"views": {"model.int8.onnx": view}}}})
        warn_of_sums("model.fp16.onnx", {"half": {"record": {}}})
    assert (
        "model.int8.onnx: integer sums of 1 GEMM exceed the range of float16 (up to 70,000 at layer" in caplog.text
    ) == warned
    assert len(caplog.records) == warned


@pytest.mark.parametrize(
    ("options", "chosen", "code", "message"),
    [
        (("--attention", "plugin"), {"version": ELEVEN}, 4, "reads no calibration cache, which INT8 plugins need"),
        (("--calibrator", "tensorrt"), {}, 2, "--calibrator tensorrt: .* Add --attention plugin"),
        ((), {"double": False}, 4, "TensorRT: it is not installed"),
        (("--device", "cuda:1"), {}, 4, "this machine has 1 GPUs"),
        (("--device", "tpu"), {}, 2, "--device tpu: unknown"),
        (("--device", "cuda:x"), {}, 2, "cuda:x: unknown"),
        (("--seq-len", "1,64,256"), {}, 2, "the model takes at most 128"),
        (("--hardware-compatible", "ampere-plus"), {}, 2, "a GPU must have compute capability 8.0 or later"),
        ((), {"sm": "7.0"}, 4, "its compute capability is 7.0, but TensorRT needs 7.5"),
        (
            ("--attention", "plugin"),
            {"fault": "no_plugins"},
            4,
            "lacks the plugin CustomQKVToContextPluginDynamic of version 5 or",
        ),
        (
            ("--attention", "plugin"),
            {"fault": "missing_scales"},
            1,
            r"found no scale for \d+ tensors?, the first of them layer\.0\.",
        ),
        ((), {"fault": "no_int8"}, 1, "INT8 was asked for, but the engine computes no GEMM in INT8"),
        ((), {"fault": "none_plan"}, 1, "TensorRT builds no engine: "),
        ((), {"fault": "oom"}, 4, "ran out of memory"),
        ((), {"fault": "parser"}, 1, "cannot parse the graph"),
        ((), {"fault": "interrupt"}, 130, "interrupted: existing files"),
        (("--attention", "plugin", "--calibrator", "tensorrt", *SMALL), {"fault": "interrupt"}, 130, "interrupted"),
        (
            ("--attention", "plugin", "--calibrator", "tensorrt", *SMALL),
            {"fault": "mem"},
            4,
            "Tesla T4: out of memory: 0 MB could not be allocated on the GPU",
        ),
    ],
)
def test_what_makes_no_engine_leaves_the_bundle_as_it_was(
    make, typed_bundles, tmp_path, options, chosen, code, message
):
    before = files(typed_bundles["int8"])
    bundle = shutil.copytree(typed_bundles["int8"], tmp_path / "b")
    done = make(bundle, "-q", *options, **chosen)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(message, done.stderr.splitlines()[-1]), done.stderr
    assert files(bundle) == before
    assert {path.name for path in tmp_path.iterdir()} - {"engines"} == {"b"}


def test_a_refused_engine_leaves_what_tells_why(make, bundle_of, tmp_path):
    done = make(bundle_of("int8"), "-q", fault="no_int8")
    named = re.search(r"report this with the files in (.*)\.$", done.stderr.splitlines()[-1])[1]
    (place,) = tmp_path.rglob(named)
    assert json.loads((place / "layers.json").read_text())["Layers"]
    assert json.loads((place / "heard.json").read_text())["layers"]["int8_products"] == 0


def test_fp32_has_no_plugin(make, bundle_of):
    done = make(bundle_of("fp32"), "--attention", "plugin", "-q")
    assert (done.returncode, "the plugin has kernels for fp16 and int8, not fp32" in done.stderr) == (2, True)


def test_the_second_build_does_nothing_and_another_option_rebuilds(make, bundle_of):
    bundle = bundle_of("fp16")
    make(bundle)
    before = files(bundle)
    done = make(bundle)
    assert (done.returncode, "up to date: nothing done" in done.stdout) == (0, True)
    assert files(bundle) == before
    done = make(bundle, "--optimization-level", "1", "--json")
    assert json.loads(done.stdout)["done"] == ["plans/sm75-trt10.16.1.11"]
    assert record_of(bundle)["options"]["optimization_level"] == 1
    assert json.loads(make(bundle, "--optimization-level", "1", "--force", "--json").stdout)["done"]


def test_each_machine_has_a_folder_of_its_own(make, toolchain, bundle_of):
    bundle = bundle_of("fp16")
    make(bundle)
    first = files(bundle / "plans/sm75-trt10.16.1.11")
    done = make(bundle, sm="8.0", gpu="A100")
    assert done.returncode == 0, done.stderr
    assert record_of(bundle, "sm80-trt10.16.1.11")["gpu"] == "A100"
    assert files(bundle / "plans/sm75-trt10.16.1.11") == first
    for chosen, here in (({"sm": "8.6"}, "8.6 with TensorRT 10.16"), ({"version": ELEVEN}, "7.5 with TensorRT 11.4")):
        done = toolchain("eval", bundle, "--backend", "trt", "-q", **chosen)
        assert done.returncode == 4
        assert f"no plan for compute capability {here}" in done.stderr
        assert "its plans: sm75-trt10.16.1.11, sm80-trt10.16.1.11" in done.stderr
        assert f"toolchain build {bundle} --backend trt" in done.stderr


def refuse_to_evaluate(bundle):
    import tensorrt

    from toolchain.cli import main

    assert main(["eval", str(bundle), "--backend", "trt", "-q"]) == 1
    assert not [call for call in tensorrt.double_calls if call[0] == "deserialize"]


@pytest.mark.parametrize("name", ["model.plan", "plan.json"])
def test_a_changed_plan_is_refused_before_it_is_deserialised_and_force_makes_it_again(make, in_double, bundle_of, name):
    bundle = bundle_of("fp16")
    make(bundle)
    file = bundle / "plans/sm75-trt10.16.1.11" / name
    file.write_bytes(file.read_bytes().replace(b"10.16.1.11", b"10.16.1.12"))
    in_double(refuse_to_evaluate, bundle=bundle)
    done = make(bundle)
    assert (done.returncode, name in done.stderr, "changed since it was built" in done.stderr) == (1, True, True)
    assert make(bundle, "--force").returncode == 0
    assert "up to date" in make(bundle).stdout


def test_plans_live_as_long_as_what_they_were_made_of(make, bundle_of, typed_bundles, sentences):
    bundle, checkpoint = bundle_of("int8"), typed_bundles["int8"].parent / "away"
    assert make(bundle).returncode == 0
    assert make(bundle, "--attention", "plugin", sm="8.0").returncode == 0
    native, plugin = "sm75-trt10.16.1.11", "sm80-trt10.16.1.11"

    def rebuilt(**changes):
        build(
            Recipe.make(
                {
                    "model": str(checkpoint),
                    "data": str(sentences),
                    "precision": "int8",
                    "calib_samples": 24,
                    "output": str(bundle),
                    **changes,
                }
            ),
            engine=False,
        )
        known = open_bundle(bundle).manifest["artefacts"]
        folders = {path.name for path in bundle.glob("plans/*")}
        assert {name.split("/")[1] for name in known if name.startswith("plans/")} == folders
        return folders

    assert rebuilt() == {native, plugin}
    assert rebuilt(keep="*.layer.0.ffn.lin2") == {plugin}  # the plugins' graph and ranges are what they were
    assert rebuilt(keep="*.layer.0.ffn.lin2", calib_method="mse") == set()


def test_a_plan_of_another_precision_goes(make, bundle_of, typed_bundles, sentences):
    bundle, checkpoint = bundle_of("fp16"), typed_bundles["int8"].parent / "away"
    assert make(bundle, "--attention", "plugin").returncode == 0
    build(Recipe.make({"model": str(checkpoint), "precision": "fp32", "output": str(bundle)}), engine=False)
    assert not list(bundle.glob("plans/*"))


def test_explain_needs_no_tensorrt(make, toolchain, bundle_of):
    bundle = bundle_of("int8")
    done = toolchain("explain", bundle, "--backend", "trt", double=False)
    assert (done.returncode, "has no engine of TensorRT. Build one here" in done.stderr) == (1, True)
    make(bundle, "--attention", "plugin")
    done = toolchain("explain", bundle, "--backend", "trt", double=False)
    assert "attention plugin" in done.stdout
    assert "GEMMs in INT8" in done.stdout
    found = json.loads(toolchain("explain", bundle, "--backend", "trt", "--json", double=False).stdout)
    record = record_of(bundle)
    assert found["layers"] == record["layers"]
    assert found["missing_scales"] == record["missing_scales"]
    assert found["advice"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tensorrt_8_builds_a_graph_of_its_own_by_flags(make, bundle_of, precision):
    bundle = bundle_of(precision)
    done = make(bundle, *SMALL, version="8.6.1")
    assert done.returncode == 0, done.stderr
    record = record_of(bundle, "sm75-trt8.6.1")
    assert record["graph"]["file"] == f"model.{precision}.trt8.onnx"
    assert graph.load(bundle / record["graph"]["file"]).graph.opset_imports[""] == 17
    assert (record["layers"]["int8_products"] > 0) == (precision == "int8")
