"""OpenVINO's profiler times the kernels, and each has the place of the ONNX nodes that it was made from."""

import numpy as np
import pytest

from tests.profile.profilers.test_ort import PARTS, VIEWS
from toolchain import graph
from toolchain.int8.calibrate import calibrate
from toolchain.profile.profilers import open_profiler
from toolchain.profile.spans import group_ms
from toolchain.runtimes import openvino

pytest.importorskip("openvino", reason="pip install 'encoder-toolchain[openvino]'")


# OpenVINO cannot open the typed graph for TensorRT in float32: it fails on the float16 between the Q/DQ nodes.
@pytest.mark.parametrize(
    ("flags", "views"),
    [
        pytest.param({"avx2"}, ("fp32", "int8.cpu"), id="float"),
        pytest.param({"avx2", "avx512_vnni"}, ("fp32", "int8", "int8.cpu"), id="integers", marks=pytest.mark.slow),
    ],
)
def test_at_least_97_percent_of_the_time_has_a_place(
    exported, tokens_of, probe, reference, tmp_path, monkeypatch, flags, views
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino, "cpu_flags", lambda: frozenset(flags))
    ranges = calibrate(graph.load(exported["distilbert"]), tokens_of("distilbert", 40), method="minmax")
    for name in views:
        model = graph.load(exported["distilbert"])
        VIEWS[name](model, ranges)
        graph.save(model, tmp_path / f"{name}.onnx")
        with open_profiler("openvino", tmp_path / f"{name}.onnx") as opened:
            for _ in range(3):
                logits = opened.infer(probe("distilbert"))
            calls = opened.spans()
        if name == "fp32":
            np.testing.assert_allclose(logits, reference("distilbert", probe("distilbert")), atol=1e-5)
        ms = group_ms(calls)
        assert len(calls) == 3
        assert sum(ms[part] for part in PARTS) >= 0.97 * sum(ms.values()), name
        layers = {span.place.layer for span in calls[0] if span.place and span.place.group == "feed_forward"}
        assert layers == {0, 1}, name
