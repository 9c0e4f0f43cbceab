"""Every runtime returns float32 logits, frees everything when it is left, and never falls back silently."""

import numpy as np
import pytest

from toolchain.checkpoint.model import find_model
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.recipe.tables import BACKENDS, imported
from toolchain.runtimes import open_runtime, ort
from toolchain.runtimes.ort import open_session


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_torch_and_ort_equal_transformers(checkpoints, exported, probe, reference, kind):
    batch = probe(kind)
    models = {"torch": find_model(str(checkpoints[kind])), "ort": exported[kind]}
    for backend, model in models.items():
        with open_runtime(backend, model, device="cpu", precision="fp32") as infer:
            logits = infer(batch)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, reference(kind, batch), atol=1e-5)


def test_bf16_is_near(tiny_bert, probe, reference):
    with open_runtime("torch", find_model(str(tiny_bert)), precision="bf16") as infer:
        found = infer(probe("bert"))
    difference = np.abs(found - reference("bert", probe("bert"))).max()
    assert 0 < difference < 0.2


def test_everything_is_freed_after_it_is_left(exported, probe):
    with open_runtime("ort", exported["distilbert"]) as infer:
        pass
    with pytest.raises(IndexError):
        infer(probe("distilbert"))


def test_torch_has_no_other_precision(tiny_bert):
    with (
        pytest.raises(UsageError, match="--precision int4: cannot be used with --backend torch"),
        open_runtime("torch", find_model(str(tiny_bert)), precision="int4"),
    ):
        pass


def test_a_missing_gpu_is_exit_4(exported):
    with pytest.raises(MachineError, match="--device cuda:3: this backend cannot use a GPU"):
        open_session(exported["bert"], device="cuda:3")


@pytest.fixture
def listed_cuda(monkeypatch):
    """The package of ONNX Runtime for CUDA, which lists its provider on any machine."""
    import onnxruntime

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)


def test_the_package_for_cuda_runs_on_the_cpu_of_a_machine_without_a_gpu(exported, listed_cuda, monkeypatch):
    monkeypatch.setattr(ort, "has_cuda_gpu", lambda: False)
    assert open_session(exported["bert"], device="auto").get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(MachineError, match="--device cuda: this backend cannot use a GPU"):
        open_session(exported["bert"], device="cuda")


def test_a_silent_fall_back_is_an_error(exported, listed_cuda, monkeypatch):
    """ONNX Runtime lists CUDA and then runs on the CPU when CUDA's libraries do not load."""
    import onnxruntime

    real = onnxruntime.InferenceSession
    monkeypatch.setattr(ort, "has_cuda_gpu", lambda: True)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, providers: real(model, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(MachineError, match="fell back to CPUExecutionProvider"):
        open_session(exported["bert"], device="cuda")


def test_a_file_that_is_not_a_graph_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x" * 100)
    with pytest.raises(InputError, match=r"m\.onnx: ONNX Runtime cannot load it"):
        open_session(tmp_path / "m.onnx")


def test_trt_names_the_missing_library(tmp_path):
    wanted = r"TensorRT: it is not installed.*encoder-toolchain\[cuda,tensorrt\]"
    with pytest.raises(MachineError, match=wanted), open_runtime("trt", tmp_path):
        pass


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_function_that_the_table_of_backends_names_exists(backend):
    entry = BACKENDS[backend]
    assert callable(imported(entry.opener))
    if isinstance(entry.gpu, str):
        assert imported(entry.gpu)() in (True, False)


def test_a_session_leaves_processors_to_others_where_it_is_told(exported):
    options = open_session(exported["distilbert"], threads=1, spin=False).get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize(("flags", "set_to"), [({"avx2"}, "1"), ({"avx2", "avx512_vnni"}, None), ({"asimd"}, None)])
def test_the_slower_kernel_with_exact_sums_is_taken_where_the_faster_saturates(exported, monkeypatch, flags, set_to):
    monkeypatch.setattr(ort, "cpu_flags", lambda: frozenset(flags))
    options = open_session(exported["distilbert"]).get_session_options()
    if set_to:
        assert options.get_session_config_entry(ort.EXACT_SUMS) == set_to
    else:
        with pytest.raises(RuntimeError, match="does not have configuration"):
            options.get_session_config_entry(ort.EXACT_SUMS)


def test_the_largest_integer_sums_are_exact():
    # Without VNNI, x86 kernels of uint8 x int8 saturate at 2 x 255 x 127 unless they are told otherwise.
    from onnx import TensorProto, helper

    depth, columns = 64, 32
    weight = helper.make_tensor("b", TensorProto.INT8, [depth, columns], np.full(depth * columns, 127, np.int8))
    one = helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])
    node = helper.make_node("MatMulIntegerToFloat", ["a", "b", "one", "one"], ["y"], domain="com.microsoft")
    body = helper.make_graph(
        [node],
        "gemm",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", columns])],
        [weight, one],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    session = open_session(helper.make_model(body, opset_imports=opsets, ir_version=9).SerializeToString())
    (found,) = session.run(["y"], {"a": np.full((8, depth), 255, np.uint8)})
    np.testing.assert_array_equal(found, np.full((8, columns), depth * 255 * 127, np.float32))
