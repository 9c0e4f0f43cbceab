"""The bounds for a GPU equal those computed by hand from its data sheet, and are marked as bounds."""

import json
import sys

import pytest

from toolchain import graph
from toolchain.cli import main
from toolchain.engine.cross import compile_kernels
from toolchain.errors import InputError, UsageError
from toolchain.profile.roofline.estimate import KIND, estimate
from toolchain.profile.roofline.work import Extent, count


@pytest.fixture
def without_rtx(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)


def test_with_the_compiler_the_time_of_its_kernels_stands_beside_the_bound(typed_bundles):
    pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")
    found = estimate({}, gpu="t4", bundle=typed_bundles["int8"], idle_w=10.0)
    assert found["kernels_reason"] is None
    model = graph.load(typed_bundles["int8"] / "model.int8.onnx")
    for one in found["bounds"]:
        kernels = compile_kernels(model, 75, batch=one["batch"], length=one["length"])
        longer = [max(k.bytes / 320e9, k.operations / (130e12 if k.precision == "int8" else 65e12)) for k in kernels]
        assert one["kernels_ms"] == pytest.approx(1e3 * sum(longer))
        assert one["time_ms"] == max(one["compute_ms"], one["memory_ms"]) < one["kernels_ms"]
        assert one["mj_per_row_at_least"] == pytest.approx(10 * one["time_ms"] / one["batch"])


@pytest.mark.parametrize(
    ("gpu", "precision", "reason"),
    [("h200", "int8", "does not compile for NVIDIA H200"), ("t4", "fp16", "no graph for TensorRT in this precision")],
)
def test_where_there_are_no_kernels_it_says_why(typed_bundles, gpu, precision, reason):
    pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")
    found = estimate({"precision": precision}, gpu=gpu, bundle=typed_bundles["int8"])
    assert {one["kernels_ms"] for one in found["bounds"]} == {None}
    assert reason in found["kernels_reason"]


def test_the_bound_is_the_same_without_the_compiler(typed_bundles, without_rtx):
    found = estimate({}, gpu="t4", bundle=typed_bundles["int8"])
    assert {one["kernels_ms"] for one in found["bounds"]} == {None}
    assert "pip install 'encoder-toolchain[rtx]'" in found["kernels_reason"]


def test_the_bound_is_the_longer_of_gemms_and_memory(typed_bundles, without_rtx):
    found = estimate({"precision": "fp16"}, gpu="t4", bundle=typed_bundles["fp16"])
    work = count(graph.load(typed_bundles["fp16"] / "model.fp16.onnx"))
    for one in found["bounds"]:
        flop = work.operations(Extent.of([found["length"]["tokens"]] * one["batch"]))
        assert set(flop) == {"fp16"}
        compute_ms = 1e3 * flop["fp16"] / 65e12
        memory_ms = 1e3 * one["bytes_lower_bound"] / 320e9
        assert one["time_ms"] == pytest.approx(max(compute_ms, memory_ms))
        assert one["rows_per_s"] == pytest.approx(1e3 * one["batch"] / one["time_ms"])
    assert [one["batch"] for one in found["bounds"]] == [1, 8, 32]
    assert found["kind"] == KIND == "bound by data sheet, not a measurement"


def test_weights_beyond_the_cache_bound_a_small_batch(typed_bundles, monkeypatch, without_rtx):
    """A model beyond the cache is read once a batch, so memory bounds a small batch and GEMMs bound a large one."""
    from toolchain.profile.roofline import estimate as module

    work = count(graph.load(typed_bundles["fp16"] / "model.fp16.onnx"))
    large = type(work)({"fp16": (0.0, 85e6, 18432.0)}, {"fp16": 42_500_000}, inputs=2, outputs=2)  # DistilBERT-base
    monkeypatch.setattr(module, "_work", lambda bundle, precision: ("model.fp16.onnx", large))
    monkeypatch.setattr(module, "_length", lambda bundle, changes: {"tokens": 128, "from": "a test"})
    one, _, many = estimate({}, gpu="t4", bundle=typed_bundles["fp16"])["bounds"]
    assert (one["bound"], many["bound"]) == ("memory", "compute")
    assert one["memory_ms"] == pytest.approx(0.265, rel=0.06)  # 85 MB at 320 GB/s, less 4 MB of cache
    assert one["compute_ms"] == pytest.approx(0.172, rel=0.01)  # 11.17 GFLOP at 65 TFLOP/s


def test_energy_is_bounded_above_by_the_power_limit_and_below_by_idle_power(typed_bundles, without_rtx):
    unknown = estimate({}, gpu="t4", bundle=typed_bundles["int8"])
    known = estimate({}, gpu="t4", bundle=typed_bundles["int8"], idle_w=10.0)
    assert (unknown["at_least_reason"], known["at_least_reason"]) == ("idle_power_not_in_data_sheet", None)
    for one, other in zip(unknown["bounds"], known["bounds"], strict=True):
        assert one["mj_per_row_at_least"] is None
        assert one["mj_per_row_at_most_at_this_speed"] == pytest.approx(1e3 * 70 / one["rows_per_s"])
        assert other["mj_per_row_at_least"] == pytest.approx(1e3 * 10 / one["rows_per_s"])


def test_rows_have_the_mean_length_of_the_task(typed_bundles, sentences, tmp_path):
    found = estimate({"data": str(sentences)}, gpu="t4", bundle=typed_bundles["int8"])["length"]
    words = [len(line.split(",")[0].split()) for line in (sentences / "validation.csv").read_text().splitlines()[1:]]
    assert found["from"] == "mean of 40 validation rows"
    assert found["tokens"] == pytest.approx(sum(words) / len(words) + 2, abs=1)  # [CLS] and [SEP]
    with pytest.raises(InputError):
        estimate({"data": str(tmp_path)}, gpu="t4", bundle=typed_bundles["int8"])


def test_without_data_rows_have_128_tokens(typed_bundles, monkeypatch):
    from toolchain.errors import MachineError
    from toolchain.profile.roofline import estimate as module

    def load_rows(*_, **__):
        raise MachineError("gone")

    monkeypatch.setattr(module, "load_rows", load_rows)
    found = estimate({}, gpu="t4", bundle=typed_bundles["int8"])["length"]
    assert found == {"tokens": 128, "from": "no data at hand"}


def test_a_precision_that_was_not_built_is_assumed_for_the_whole_graph(typed_bundles):
    found = estimate({"precision": "bf16"}, gpu="l4", bundle=typed_bundles["int8"])
    assert (found["artefact"], found["precision"]) == ("model.onnx", "bf16")
    slow, fast = (estimate({"precision": one}, gpu="l4", bundle=typed_bundles["fp32"]) for one in ("fp32", "int8"))
    assert slow["bounds"][2]["compute_ms"] == pytest.approx(242 / 60 * fast["bounds"][2]["compute_ms"])  # TF32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": "gtx-970"}, r"--gpu gtx-970: this GPU is unknown\. Choose one of t4,"),
        ({"gpu": "t4", "precision": "bf16"}, r"bf16: NVIDIA T4 does not compute bf16\. Choose one of fp32, fp16, int8"),
        ({"gpu": "t4", "idle_w": 70.0}, r"--idle-power 70: .+ between 0 and 70 W, the power limit of NVIDIA T4"),
        ({"gpu": "t4", "idle_w": float("nan")}, r"--idle-power nan: the power must be between 0 and 70 W"),
    ],
)
def test_an_invalid_choice_is_refused(typed_bundles, options, message):
    changes = {"precision": options.pop("precision", None)}
    with pytest.raises(UsageError, match=message):
        estimate(changes, bundle=typed_bundles["int8"], **options)


def test_the_command_prints_bounds(typed_bundles, capsys):
    assert main(["estimate", str(typed_bundles["int8"]), "--gpu", "t4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpu"]["name"] == "NVIDIA T4"
    assert main(["estimate", str(typed_bundles["int8"]), "--gpu", "h200", "--idle-power", "70", "-q"]) == 0
    shown = capsys.readouterr().out
    assert "bound by data sheet, not a measurement" in " ".join(shown.split())
    assert "700/r J per row" in shown
    assert main(["estimate", str(typed_bundles["int8"]), "--gpu", "x"]) == 2
