"""The promises for SST-2 on the real checkpoint and its GLUE data, where they are at hand."""

import pytest

from tests.shared.checks import FP32, agreement, check_chosen, check_halves, check_openvino, metric, predictions

pytestmark = [pytest.mark.shared, pytest.mark.slow]


def test_sst2_in_int8_keeps_its_accuracy(made):
    bundle = made("sst2", precision="int8")
    found = predictions(bundle)
    assert len(found.predicted) == 872
    assert metric(found, "sst2") >= 0.870
    assert agreement(found, predictions(bundle, file="model.onnx")) >= 0.95


def test_sst2_int8_for_tensorrt_keeps_it_too(made):
    assert metric(predictions(made("sst2", precision="int8"), file="model.int8.onnx"), "sst2") >= 0.870


def test_sst2_in_int8_keeps_it_on_openvino(made, cache_home):
    check_openvino(made, "sst2", 0.870)


def test_a_float16_checkpoint_runs_in_float32_on_torch(in_pytorch):
    assert metric(in_pytorch("sst2"), "sst2") == pytest.approx(FP32["sst2"], abs=5e-5)


def test_sst2_in_fp16_agrees(made, in_pytorch):
    found = predictions(made("sst2", precision="fp16"), file="model.fp16.onnx")
    assert agreement(found, in_pytorch("sst2")) >= 0.999


def test_a_chosen_int8_keeps_accuracy_with_nine_tenths_of_the_work_in_int8(made, in_pytorch):
    check_chosen(made, in_pytorch, "sst2", most=0.3)


def test_onnx_runtimes_own_int8_is_explained(made, shared, tmp_path):
    """Its quantize_static leaves MatMuls in float on this CPU, and entropy ranges of few rows clip."""
    import numpy as np
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    from toolchain.diagnose.explain import explain
    from toolchain.diagnose.probe import open_probe_graph

    probe = open_probe_graph(made("sst2", precision="int8"), {"file": "model.onnx"})

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.batches = iter([probe.tokens.batch(np.arange(start, start + 16), length=48) for start in (0, 16)])

        def get_next(self):
            return next(self.batches, None)

    types = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(
        probe.file,
        tmp_path / "q.onnx",
        Reader(),
        calibrate_method=CalibrationMethod.Entropy,
        extra_options={"ActivationSymmetric": True},
        **types,
    )
    found = explain(open_probe_graph(tmp_path / "q.onnx", {"model": str(shared("models/distilbert-l6-h384-sst2"))}))
    uncovered = [one["name"] for one in found["products"] if not one["on_this_cpu"]]
    assert len(uncovered) >= 12
    assert any(name.endswith("q_lin") for name in uncovered)
    assert found["clipped"]
    assert all(one["tensor"] and one["share"] > 0 for one in found["clipped"])


def test_fp16_is_finite_in_real_halves_and_decides_as_pytorch_does(made, in_pytorch):
    check_halves(made("sst2", precision="fp16"), "model.fp16.onnx", in_pytorch("sst2"))


def test_int8_as_a_gated_build_chooses_it_decides_alike_in_real_halves(made):
    bundle = made("sst2", precision="int8", calib_method="auto", max_drop=0.5)  # entropy alone does not: docs/log.md
    check_halves(bundle, "model.int8.onnx", predictions(bundle, file="model.int8.onnx"))
