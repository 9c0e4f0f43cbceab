"""NVIDIA's compiler takes every graph that a build emits, for every kind of GPU, and computes it as it asks."""

import json

import pytest

from tests.engine.matrix import BYTES, CASES, PRECISIONS, TARGETS, compiled, moved, typed
from toolchain.engine.judge import judge
from toolchain.roofline.gpus import find_gpu
from toolchain.roofline.kernels import bounded

pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")
pytestmark = pytest.mark.slow

# Share by which the bytes that the kernels move may differ from the recorded ones.
TOLERANCE = 0.02

# Most megabytes and microseconds of DistilBERT-base on a T4, 32 rows of 128 tokens, by precision and residual.
LIMITS = {("fp16", None): (1200, 6500), ("int8", None): (1140, 4500), ("int8", "int8"): (1060, 4250)}


@pytest.fixture(scope="module")
def float_graphs(once):
    """Return the FP32 graph of a case, which is exported once."""
    return lambda case: once(f"matrix-{case.name}", case.export) / f"{case.name}.onnx"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_emitted_graph_is_compiled_as_it_asks(float_graphs, case):
    if not case.exists:
        pytest.skip(f"{case.checkpoint} is absent")
    recorded = json.loads(BYTES.read_text(encoding="utf-8"))[case.name]
    for precision in PRECISIONS:
        model, asked = typed(float_graphs(case), precision)
        for sm in TARGETS:
            kernels = compiled(model, sm)
            assert judge(kernels, asked) == [], (precision, sm)
            assert moved(kernels) == pytest.approx(recorded[precision][str(sm)], rel=TOLERANCE), (precision, sm)


@pytest.mark.parametrize(("precision", "residual"), LIMITS)
def test_distilbert_base_stays_within_its_limits_on_a_t4(float_graphs, precision, residual):
    (case,) = [one for one in CASES if one.name == "distilbert-base"]
    model, asked = typed(float_graphs(case), precision, residual=residual)
    kernels = compiled(model, 75)
    megabytes, microseconds = LIMITS[precision, residual]
    assert judge(kernels, asked) == []
    assert moved(kernels) <= 1e6 * megabytes
    assert sum(bounded(one, find_gpu("t4").ceiling)["us"] for one in kernels) <= microseconds
