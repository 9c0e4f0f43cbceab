"""NVIDIA's compiler takes every graph that a build emits, for every kind of GPU, and computes it as it asks."""

import json

import pytest

from tests.engine.matrix import BYTES, CASES, compiled, emitted, moved
from toolchain.engine.judge import judge
from toolchain.profile.roofline.gpus import find_gpu
from toolchain.profile.roofline.kernels import bounded

pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")
pytestmark = pytest.mark.slow

# Share by which the bytes that the kernels move may differ from the recorded ones.
TOLERANCE = 0.02

# Most megabytes and microseconds of DistilBERT-base on a T4, 32 rows of 128 tokens; with residual additions in INT8.
LIMITS = {"fp16": (1200, 6500), "int8": (1140, 4500), "rtx": (1140, 4500), "residual": (1060, 4250)}


@pytest.fixture(scope="module")
def float_graphs(once, demo_bundle, real_export):
    """Return the FP32 graph of a case, which is exported once."""

    def find(case):
        if case.checkpoint == "demo":
            return demo_bundle / "model.onnx"
        if case.checkpoint:
            return real_export(case.checkpoint.rpartition("-")[2]) / "model.onnx"
        return once(f"matrix-{case.name}", case.export) / f"{case.name}.onnx"

    return find


def check_limits(kernels, name):
    megabytes, microseconds = LIMITS[name]
    assert moved(kernels) <= 1e6 * megabytes
    assert sum(bounded(one, find_gpu("t4").ceiling)["us"] for one in kernels) <= microseconds


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_emitted_graph_is_compiled_as_it_asks(float_graphs, case):
    if not case.exists:
        pytest.skip(f"{case.checkpoint} is absent")
    recorded = json.loads(BYTES.read_text(encoding="utf-8"))[case.name]
    for sm, graphs in case.by_target(float_graphs(case)):
        for name, (model, asked) in graphs.items():
            kernels = compiled(model, sm)
            assert judge(kernels, asked) == [], (name, sm)
            assert moved(kernels) == pytest.approx(recorded[name][str(sm)], rel=TOLERANCE), (name, sm)
            if (case.name, sm) == ("distilbert-base", 75):
                check_limits(kernels, name)


def test_distilbert_base_with_residuals_in_int8_moves_still_less(float_graphs):
    (case,) = [one for one in CASES if one.name == "distilbert-base"]
    model, asked = emitted(float_graphs(case), residual="int8")["rtx"]
    kernels = compiled(model, 75)
    assert judge(kernels, asked) == []
    check_limits(kernels, "residual")


@pytest.mark.parametrize("task", ["mrpc", "stsb"])
def test_the_other_checkpoints_have_the_shapes_of_sst2(shared, task):
    """So the graphs of sst2 stand for that of pairs, and with another head for that of the regression."""
    shapes = [
        {
            key: value
            for key, value in json.loads(shared(f"models/distilbert-l6-h384-{name}/config.json").read_text()).items()
            if isinstance(value, int) or key == "architectures"
        }
        for name in ("sst2", task)
    ]
    assert shapes[0] == shapes[1]
