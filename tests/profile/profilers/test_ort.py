"""ONNX Runtime's profiler times the evaluated session, and each node has a place."""

import numpy as np
import pytest

from toolchain import graph
from toolchain.errors import InputError
from toolchain.graph.fp16 import to_half
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import CPU, TENSORRT, quantize
from toolchain.profile.groups import NOWHERE, Place
from toolchain.profile.profilers import open_profiler
from toolchain.profile.profilers.ort import calls_of
from toolchain.profile.spans import group_ms

PARTS = {"embedding", "attention", "feed_forward", "head"}


def int8(target):
    def view(model, ranges):
        quantize(model, ranges, target)
        if target is TENSORRT:
            to_half(model)

    return view


VIEWS = {
    "fp32": lambda model, ranges: None,
    "fp16": lambda model, ranges: to_half(model),
    "int8": int8(TENSORRT),
    "int8.cpu": int8(CPU),
}


@pytest.mark.parametrize(
    "kind", ["distilbert", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("bert", "roberta"))]
)
def test_at_least_97_percent_of_the_time_has_a_place(exported, tokens_of, probe, tmp_path, kind):
    tokens = tokens_of(kind, 40)
    ranges = calibrate(graph.load(exported[kind]), tokens, method="minmax")
    for name, view in VIEWS.items():
        model = graph.load(exported[kind])
        view(model, ranges)
        graph.save(model, tmp_path / f"{name}.onnx")
        with open_profiler("ort", tmp_path / f"{name}.onnx", device="cpu") as opened:
            for _ in range(3):
                opened.infer(probe(kind))
            calls = opened.spans()
        ms = group_ms(calls)
        assert len(calls) == 3
        assert sum(ms[part] for part in PARTS) >= 0.97 * sum(ms.values()), name
        assert all(ms[part] > 0 for part in PARTS), name
        layers = {span.place.layer for span in calls[0] if span.place and span.place.group == "feed_forward"}
        assert layers == {0, 1}, name


def test_the_logits_are_those_of_the_graph(exported, probe, reference):
    with open_profiler("ort", exported["bert"], device="cpu") as opened:
        np.testing.assert_allclose(opened.infer(probe("bert")), reference("bert", probe("bert")), atol=1e-5)
        assert opened.clock == "onnxruntime_kernels"


def test_an_invalid_batch_is_an_error(exported, probe):
    wrong = {name: array + 10_000 for name, array in probe("bert").items()}
    with (
        open_profiler("ort", exported["bert"], device="cpu") as opened,
        pytest.raises(InputError, match="cannot run it"),
    ):
        opened.infer(wrong)


def event(name, ts, dur, cat="Node", **args):
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": args}


PLACES = {"q": Place("attention", 0), "lin": Place("feed_forward", 0)}


def test_each_run_is_put_into_the_middle_of_its_call():
    events = [
        event("model_run", 1000, 60, "Session"),
        event("q_kernel_time", 1010, 20),
        event("x_kernel_time", 1040, 5),
        event("q_fence_before", 1009, 1),
        event("model_run", 2000, 40, "Session"),
        event("lin_kernel_time", 2000, 30),
    ]
    first, second = calls_of(events, [100.0, 40.0], PLACES)
    assert [(span.name, span.place, span.start_us, span.dur_us) for span in first] == [
        ("q", PLACES["q"], 30, 20),
        ("x", NOWHERE, 60, 5),
    ]
    assert [(span.name, span.start_us) for span in second] == [("lin", 0)]


def test_kernels_count_instead_of_launches_if_the_profiler_times_them():
    events = [
        event("model_run", 0, 90, "Session"),
        event("q_kernel_time", 10, 2, op_name="MatMul"),
        event("sm75_gemm", 20, 30, "Kernel", parent_name="q_kernel_time"),
        event("add_bias", 55, 10, "Kernel", parent_name="q_kernel_time"),
    ]
    (call,) = calls_of(events, [90.0], PLACES)
    assert [(span.name, span.place, span.dur_us) for span in call] == [("q", PLACES["q"], 30), ("q", PLACES["q"], 10)]
