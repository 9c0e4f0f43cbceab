"""ONNX Runtime's TensorRT provider: it runs the whole graph or is refused, with options from its documentation."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from toolchain.errors import InputError, MachineError
from toolchain.runtimes import open_runtime, ort_trt

PROVIDER = "TensorrtExecutionProvider"


class Session:
    """An InferenceSession that keeps its arguments."""

    made: list["Session"]
    chosen = PROVIDER

    def __init__(self, model, options, providers):
        if model.endswith("broken.onnx"):
            raise RuntimeError("node Where_3 is not supported\nand more")
        self.model, self.entries, self.providers, self.fallback = model, options.entries, providers, True
        Session.made.append(self)

    def get_providers(self):
        return [self.chosen]

    def disable_fallback(self):
        self.fallback = False

    def get_inputs(self):
        return [SimpleNamespace(name="input_ids"), SimpleNamespace(name="attention_mask")]

    def run(self, names, feeds):
        assert (names, set(feeds)) == (["logits"], {"input_ids", "attention_mask"})
        if feeds["input_ids"].size == 0:
            raise RuntimeError("empty")
        return [feeds["input_ids"][:, :2].astype(np.float64)]


class Options:
    def __init__(self):
        self.entries = {}

    def add_session_config_entry(self, key, value):
        self.entries[key] = value


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Session.made = []
    fake = SimpleNamespace(InferenceSession=Session, SessionOptions=Options, get_available_providers=lambda: [PROVIDER])
    monkeypatch.setattr(ort_trt, "import_onnxruntime", lambda: fake)
    monkeypatch.setattr(ort_trt, "input_names", lambda model: ["input_ids", "attention_mask"])
    return fake


@pytest.mark.parametrize(("precision", "types"), [("fp32", "00"), ("fp16", "10"), ("int8", "11")])
def test_the_options_are_those_of_the_provider(runtime, tmp_path, precision, types):
    with open_runtime("ort-trt", tmp_path / "m.onnx", device="cuda:2", precision=precision):
        session = Session.made[0]
    ((name, options),) = session.providers
    assert name == PROVIDER
    assert options == {
        "device_id": "2",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": "engines/build/.ort-trt",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": "engines/build/.ort-trt",
        "trt_fp16_enable": types[0],
        "trt_int8_enable": types[1],
        "trt_profile_min_shapes": "input_ids:1x1,attention_mask:1x1",
        "trt_profile_opt_shapes": "input_ids:32x64,attention_mask:32x64",
        "trt_profile_max_shapes": "input_ids:128x512,attention_mask:128x512",
    }
    assert session.entries == {"session.disable_cpu_ep_fallback": "1"}
    assert not session.fallback
    assert (tmp_path / "engines/build/.ort-trt").is_dir()


def test_logits_are_float32_and_inputs_that_the_graph_lacks_are_left_out(runtime, tmp_path):
    ids = np.arange(6, dtype=np.int32).reshape(2, 3)
    with open_runtime("ort-trt", tmp_path / "m.onnx") as infer:
        found = infer({"input_ids": ids, "attention_mask": ids, "token_type_ids": ids})
        with pytest.raises(InputError, match="empty"):
            infer({"input_ids": ids[:, :0], "attention_mask": ids})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ids[:, :2])


def test_a_batch_beyond_the_profile_is_split(runtime, tmp_path):
    ids = np.arange(600, dtype=np.int32).reshape(300, 2)
    with open_runtime("ort-trt", tmp_path / "m.onnx") as infer:
        np.testing.assert_array_equal(infer({"input_ids": ids, "attention_mask": ids}), ids)


def test_a_graph_that_runs_only_in_part_is_refused(runtime, tmp_path, monkeypatch):
    with (
        pytest.raises(InputError, match=r"whole graph: node Where_3 is not supported\. Build an engine instead"),
        open_runtime("ort-trt", tmp_path / "broken.onnx"),
    ):
        pass
    monkeypatch.setattr(Session, "chosen", "CUDAExecutionProvider")
    with (
        pytest.raises(MachineError, match="fell back to CUDAExecutionProvider"),
        open_runtime("ort-trt", tmp_path / "m.onnx"),
    ):
        pass


def test_a_gpu_without_fp8_is_refused(runtime, tmp_path, monkeypatch):
    for sm, refused in ((75, True), (86, True), (89, False), (None, False)):
        monkeypatch.setattr(ort_trt, "compute_capability", lambda device, sm=sm: sm)
        refusal = pytest.raises(MachineError, match=r"cuda:1: compute capability .* has no FP8 GEMMs, which need 8\.9")
        with refusal if refused else nullcontext():
            with open_runtime("ort-trt", tmp_path / "m.onnx", device="cuda:1", precision="fp8"):
                pass
            assert not refused


def test_a_missing_provider_is_exit_4(typed_bundles, capsys):
    from toolchain.cli import main

    assert main(["eval", str(typed_bundles["fp16"]), "--backend", "ort-trt"]) == 4
    assert "this ONNX Runtime lacks the TensorRT provider" in capsys.readouterr().err.splitlines()[-1]
    assert main(["eval", str(typed_bundles["fp16"]), "--backend", "ort-trt", "--device", "tpu"]) == 2
