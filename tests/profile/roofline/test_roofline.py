"""The utilisation of a run equals shares of time that are computed by hand."""

import numpy as np
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.errors import MachineError
from toolchain.profile import roofline
from toolchain.profile.roofline import assess, utilisation, work_of
from toolchain.profile.roofline.ceiling import Ceiling
from toolchain.profile.roofline.gpus import find_gpu
from toolchain.profile.roofline.work import Extent, Work, count

CPU = {"backend": "ort", "device": "cpu", "precision": "fp32"}
CUDA = {"backend": "ort", "device": "cuda:0", "precision": "fp32"}
LENGTHS = [4, 9, 9]
# Three rows in half a second.
SPEED = {
    "runtime_throughput_per_s": 6.0,
    "tokens": {"real": 22, "real_pairs": 16 + 81 + 81, "slots": 27, "slot_pairs": 3 * 81, "batches": 2},
}


@pytest.fixture
def machine(monkeypatch):
    """Return the state of a machine with a known ceiling; a test may set its `gpu`."""
    state = {"ceiling": Ceiling({"fp32": 1e9, "tf32": 4e9, "fp16": 8e9}, 1e8), "gpu": None}

    def measure(device, precisions):
        if state["ceiling"] is None:
            raise MachineError("no CUDA")
        assert precisions <= state["ceiling"].flop_per_s.keys()
        return state["ceiling"]

    monkeypatch.setattr(roofline, "measure", measure)
    monkeypatch.setattr(roofline, "_gpu", lambda device, work: state["gpu"])
    return state


def test_utilisation_is_time_at_the_ceiling_over_measured_time(exported, machine):
    found = assess(exported["bert"], SPEED, rows=3, **CPU)
    work = count(graph.load(exported["bert"]))
    flop = sum(work.operations(Extent.of([length]))["fp32"] for length in LENGTHS)
    assert (found["useful_flop"], found["flop_per_row_mean"]) == (flop, flop / 3)
    assert found["executed_flop"] == work.operations(Extent.of([9, 9, 9]))["fp32"]
    assert found["achieved_flop_per_s"] == pytest.approx(flop / 0.5)
    assert found["model_flop_utilisation"] == pytest.approx(flop / 0.5 / 1e9)
    assert found["ceiling_flop_per_s"] == pytest.approx(1e9)
    assert found["bandwidth_utilisation"] == pytest.approx(found["bytes_lower_bound"] / 0.5 / 1e8)
    assert found["ceiling"]["method"] == "measured"
    assert (found["datasheet"], found["reason"]) == (None, None)


def test_the_longer_time_is_the_bound():
    work = Work({"fp32": (0, 100, 0)}, {"fp32": 25}, inputs=0, outputs=0)
    one = Ceiling({"fp32": 1e3}, bytes_per_s=1e3)  # 0.1 s for the weights, 0.1 s a token
    assert utilisation(work, Extent.of([2]), 1.0, one)["bound"] == "compute"
    assert utilisation(work, Extent.of([2], batches=3), 1.0, one)["bound"] == "memory"


def test_a_mixed_graph_has_a_mixed_ceiling():
    work = Work({"int8": (0, 900, 0), "fp32": (100, 0, 0)}, {}, inputs=0, outputs=0)
    found = utilisation(work, Extent.of([1]), 1.0, Ceiling({"int8": 9000.0, "fp32": 1000.0}, 1.0))
    assert found["ceiling_flop_per_s"] == pytest.approx(1000 / 0.2)
    assert found["model_flop_utilisation"] == pytest.approx(0.2)


def test_a_known_gpu_is_also_compared_with_its_data_sheet(exported, machine):
    machine["gpu"] = find_gpu("h200")
    found = assess(exported["bert"], SPEED, rows=3, **CUDA)
    assert found["datasheet"]["gpu"] == "NVIDIA H200 SXM 141 GB"
    assert found["datasheet"]["ceiling_flop_per_s"] == pytest.approx(67e12)
    assert found["ceiling_flop_per_s"] == pytest.approx(1e9)


def test_without_a_measurement_the_data_sheet_is_the_ceiling(exported, machine):
    machine |= {"ceiling": None, "gpu": find_gpu("t4")}
    found = assess(exported["bert"], SPEED, rows=3, **CUDA)
    assert found["ceiling"]["method"] == "datasheet"
    assert found["ceiling_flop_per_s"] == pytest.approx(8.1e12)


def test_unknown_values_are_null_with_a_reason(exported, machine, tmp_path):
    assert assess(None, SPEED, rows=3, **CPU)["reason"] == "no_graph"
    machine["ceiling"] = None
    found = assess(exported["bert"], SPEED, rows=3, **CPU)
    assert (found["reason"], found["detail"]) == ("not_measured", "no CUDA")
    assert found["useful_flop"] > 0
    assert {found[key] for key in ("model_flop_utilisation", "bandwidth_utilisation", "bound")} == {None}
    model = graph.load(exported["bert"])
    for node in graph.nodes(model, "MatMul"):
        node.outputs[0].shape = ir.Shape([None, None, None])
    graph.save(model, tmp_path / "unknown.onnx")
    found = assess(tmp_path / "unknown.onnx", SPEED, rows=3, **CPU)
    assert (found["reason"], found["useful_flop"]) == ("not_counted", None)


@pytest.mark.parametrize(
    ("precision", "file", "backend", "device", "types"),
    [
        ("fp32", "model.onnx", "ort", "cpu", {"fp32"}),
        ("fp32", "model.onnx", "ort", "cuda:0", {"fp32"}),
        ("fp32", "model.onnx", "torch", "cuda:0", {"fp32"}),
        ("bf16", "model.onnx", "torch", "cpu", {"bf16"}),
        ("fp16", "model.fp16.onnx", "ort", "cpu", {"fp32"}),
        ("fp16", "model.fp16.onnx", "trt", "cuda:0", {"fp16"}),
        ("int8", "model.int8.onnx", "trt", "cuda:0", {"int8", "fp16"}),
        ("int8", "model.int8.onnx", "ort", "cuda:0", {"fp16"}),
        ("int8", "model.int8.onnx", "ort", "cpu", {"fp32"}),
        ("int8", "model.int8.cpu.onnx", "ort", "cpu", {"int8", "fp32"}),
    ],
)
def test_precisions_are_those_that_the_device_runs(typed_bundles, precision, file, backend, device, types):
    folder = typed_bundles[precision if precision in typed_bundles else "fp32"]
    found = work_of(folder / file, backend=backend, device=device, precision=precision)
    assert set(found.flop) == types
    assert np.isfinite(list(found.operations(Extent.of([8])).values())).all()
