"""OpenVINO computes what transformers does, exactly in INT8 or in float32, and says which; it caches and shares."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from toolchain import graph
from toolchain.bundle import open_bundle
from toolchain.cli import main
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.evaluation import target
from toolchain.graph.fp16 import to_half
from toolchain.int8.calibrate import calibrate
from toolchain.int8.coverage import cover, on_this_cpu
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.runtimes import open_runtime, openvino
from toolchain.runtimes.environment import saturates
from toolchain.runtimes.openvino import compile_graph
from toolchain.runtimes.openvino_kernels import integer_gemms

pytest.importorskip("openvino", reason="pip install 'encoder-toolchain[openvino]'")

VNNI = frozenset({"avx2", "avx512_vnni"})


@pytest.fixture(autouse=True)
def cache_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_the_logits_are_those_of_transformers_in_batches_of_any_shape(exported, random_batch, reference, kind):
    with open_runtime("openvino", exported[kind]) as infer:
        for size, length in ((1, 3), (5, 30), (2, 7)):
            batch = random_batch(kind, size, length)
            found = infer(batch)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, reference(kind, batch), atol=1e-5)
    with pytest.raises(IndexError):
        infer(batch)


@pytest.mark.parametrize(
    ("flags", "found"),
    [({"avx2"}, True), (VNNI, False), ({"avx2", "avx_vnni"}, False), ({"avx2", "amx_int8"}, False), ({"asimd"}, False)],
)
def test_processors_without_vnni_or_amx_saturate(flags, found):
    assert saturates(frozenset(flags)) is found


def largest_sums(unsigned):
    """Return a graph of one quantized GEMM whose weights are all 127, and its largest inputs."""
    from onnx import TensorProto, helper

    depth, columns = 64, 32
    kind, largest = (TensorProto.UINT8, 255) if unsigned else (TensorProto.INT8, 127)
    values = {
        "w": helper.make_tensor("w", TensorProto.INT8, [depth, columns], np.full(depth * columns, 127, np.int8)),
        "one": helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        "zero": helper.make_tensor("zero", kind, [], [0]),
        "ones": helper.make_tensor("ones", TensorProto.FLOAT, [columns], [1.0] * columns),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["left"]),
        helper.make_node("DequantizeLinear", ["w", "ones"], ["right"], axis=1),
        helper.make_node("MatMul", ["left", "right"], ["logits"]),
    ]
    body = helper.make_graph(
        nodes,
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", depth])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", columns])],
        list(values.values()),
    )
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return made.SerializeToString(), np.full((8, depth), largest, np.float32), depth * largest * 127


@pytest.mark.parametrize("unsigned", [False, True])
def test_the_largest_integer_sums_are_exact(unsigned):
    model, inputs, expected = largest_sums(unsigned)
    with open_runtime("openvino", model) as infer:
        np.testing.assert_array_equal(infer({"x": inputs}), np.full((8, 32), expected, np.float32))


@pytest.fixture
def int8(exported, tokens_of, tmp_path):
    """The path of a graph with Q/DQ nodes."""
    model = graph.load(exported["distilbert"])
    quantize(model, calibrate(model, tokens_of("distilbert", 40), method="minmax"), TENSORRT)
    graph.save(model, tmp_path / "model.int8.onnx")
    return tmp_path / "model.int8.onnx"


def test_an_int8_graph_runs_in_integers_where_they_are_exact(int8, monkeypatch, caplog):
    monkeypatch.setattr(openvino, "cpu_flags", lambda: VNNI)
    for _ in range(2):  # the second comes out of the cache
        assert integer_gemms(compile_graph(int8), graph.load(int8)) == 16  # two layers of six and two of attention
    assert not caplog.text


def test_the_graph_for_gpus_runs_in_float32_where_integers_are_not_exact(
    int8, probe, reference, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(openvino, "cpu_flags", lambda: frozenset({"avx2"}))
    model, typed = graph.load(int8), tmp_path / "typed.onnx"
    to_half(model)
    graph.save(model, typed)
    assert graph.is_half_qdq(typed)
    batch = probe("distilbert")
    with open_runtime("openvino", typed) as infer, open_runtime("ort", typed, device="cpu") as expected:
        found, in_ort = infer(batch), expected(batch)
    errors = [np.abs(logits - reference("distilbert", batch)).mean() for logits in (found, in_ort)]
    assert errors[0] < 1.5 * errors[1]  # integers one level apart move the logits of so small a model
    assert "typed.onnx: OpenVINO runs it in float32" in caplog.text


def test_an_int8_graph_that_runs_in_float32_is_said_to(int8, monkeypatch, caplog):
    monkeypatch.setattr(openvino, "cpu_flags", lambda: frozenset({"avx2"}))
    assert not integer_gemms(compile_graph(int8), graph.load(int8))
    assert "model.int8.onnx: OpenVINO runs it in float32" in caplog.text
    assert "--backend ort" in caplog.text


@pytest.mark.parametrize(("flags", "covered"), [(VNNI, True), (frozenset({"avx2"}), False)])
def test_explain_says_what_openvino_computes_in_integers(int8, monkeypatch, flags, covered):
    monkeypatch.setattr(openvino, "cpu_flags", lambda: flags)
    in_float = on_this_cpu(int8, "openvino").in_float
    for one in cover(graph.load(int8)):
        assert (one.integers and one.name not in in_float) is (one.integers and covered)


def test_gemms_that_openvino_leaves_in_float_are_counted(int8, monkeypatch, caplog):
    monkeypatch.setattr(openvino, "cpu_flags", lambda: VNNI)
    compile_graph(int8, **openvino.FLOAT_QDQ)
    assert "runs 16 of its 16 quantized GEMMs in float32" in caplog.text


def test_a_compiled_model_is_read_from_the_cache(exported, probe, cache_home, monkeypatch):
    file = exported["bert"]
    with open_runtime("openvino", file) as infer:
        expected = infer(probe("bert"))
    (blob,) = cache_home.rglob("*.blob")
    monkeypatch.setattr(openvino, "_compiled", lambda *given: pytest.fail("compiled again"))
    with open_runtime("openvino", file, threads=1) as infer:  # the threads are not part of what is compiled
        np.testing.assert_array_equal(infer(probe("bert")), expected)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    blob.write_bytes(blob.read_bytes()[:1000])
    with open_runtime("openvino", file) as infer:
        np.testing.assert_array_equal(infer(probe("bert")), expected)
    assert blob.stat().st_size > 1000
    assert not list(file.parent.glob("*.blob"))


def test_several_threads_share_one_runtime(exported, random_batch, reference):
    batches = [random_batch("distilbert", 3, length) for length in range(4, 24)]
    with open_runtime("openvino", exported["distilbert"], threads=1, callers=2) as infer, ThreadPoolExecutor(4) as pool:
        for batch, found in zip(batches, pool.map(infer, batches), strict=True):
            np.testing.assert_allclose(found, reference("distilbert", batch), atol=1e-5)


# OpenVINO's binding asks for NumPy's version at the first access to a tensor's data, which two threads must not make.
FIRST_ACCESS = """
import numpy as np
from toolchain.runtimes.openvino import import_openvino
asked, version = [], np.lib.NumpyVersion
np.lib.NumpyVersion = lambda text: asked.append(text) or version(text)
openvino = import_openvino()
print(len(asked))
openvino.Tensor(np.zeros(2, np.float32)).data
print(len(asked))
"""


def test_the_first_access_to_a_tensor_s_data_is_made_by_one_thread():
    done = subprocess.run([sys.executable, "-c", FIRST_ACCESS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_weights_in_a_file_of_their_own_are_taken(exported, probe, reference, tmp_path, monkeypatch):
    from toolchain.base.files import sha256_file

    monkeypatch.setattr(graph, "MAX_BYTES", 1000)
    graph.save(graph.load(exported["distilbert"]), tmp_path / "m.onnx")
    digests = {name: sha256_file(tmp_path / name) for name in ("m.onnx", "m.onnx.data")}
    for listed in (None, digests):
        with open_runtime("openvino", tmp_path / "m.onnx", digests=listed) as infer:
            np.testing.assert_allclose(
                infer(probe("distilbert")), reference("distilbert", probe("distilbert")), atol=1e-5
            )


def test_what_it_cannot_open_or_run_is_refused(exported, probe, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match=r"m\.onnx: (not an ONNX graph|OpenVINO cannot load it)"):
        compile_graph(tmp_path / "m.onnx")
    with pytest.raises(MachineError, match="--device cuda: this backend cannot use a GPU"):
        compile_and_open(exported["bert"], "cuda")
    with pytest.raises(UsageError, match="--device tpu: unknown"):
        compile_and_open(exported["bert"], "tpu")
    batch = {**probe("bert"), "attention_mask": np.ones((3, 2), np.int32)}
    with (
        open_runtime("openvino", exported["bert"]) as infer,
        pytest.raises(InputError, match=r"cannot run it on this batch: its inputs have the shapes \[\(3, 2\)"),
    ):
        infer(batch)


def compile_and_open(file, device):
    with open_runtime("openvino", file, device=device):
        pass


def test_without_the_package_it_is_exit_4_with_the_command(typed_bundles, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["eval", str(typed_bundles["int8"]), "--backend", "openvino"]) == 4
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith("OpenVINO is not installed. Install it with: pip install 'encoder-toolchain[openvino]'.")
    )


@pytest.mark.parametrize(
    ("flags", "file"), [(VNNI, "model.int8.onnx"), (frozenset({"avx_vnni"}), "model.int8.cpu.onnx")]
)
def test_attention_is_in_int8_too_on_avx512_with_vnni(bundle_of, monkeypatch, flags, file):
    monkeypatch.setattr(target, "cpu_flags", lambda: flags)
    int8 = open_bundle(bundle_of("int8"))
    assert target.choose_graph(int8, "int8", "cpu", backend="openvino") == file
    assert target.choose_graph(int8, "int8", "cpu") == "model.int8.cpu.onnx"
    assert target.choose_graph(open_bundle(bundle_of("fp32")), "fp32", "cpu", backend="openvino").endswith("cpu.onnx")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_eval_and_verify_run_the_graph_that_is_chosen(bundle_of, precision, capsys):
    import json

    bundle = str(bundle_of(precision))
    assert main(["eval", bundle, "--backend", "openvino", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["backend"], result["device"]) == ("openvino", "cpu")
    chosen = target.choose_graph(open_bundle(Path(bundle)), precision, "cpu", backend="openvino")
    assert result["artefact"]["file"] == chosen
    assert result["environment"]["openvino"]
    assert main(["verify", bundle, "--backend", "openvino"]) == 0
