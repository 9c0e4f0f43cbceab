"""Scores of attention are the same with keys that are not moved, and other graphs stay as they are."""

import numpy as np
import onnx
import onnxruntime
import pytest

from toolchain import graph
from toolchain.graph.keys import fold_keys

SCORES = """
<ir_version: 9, opset_import: ["" : 18]>
attention (float[b, 2, n, 4] query, float[b, 2, p, 4] keys) => (float[b, 2, n, p] scores)
<float a = {0.3}, float c = {1.7}, int64[3] flat = {-1, 0, 4}, int64[4] outer = {1, 2, 4, -1}>
{
    left = Mul (query, a)
    rows = Reshape <allowzero = 0> (keys, inner)
    turned = Transpose <perm = [PERM]> (rows)
    by_head = Reshape <allowzero = 0> (turned, outer)
    right = Mul (by_head, c)
    scores = MatMul (left, right)
}
"""


def made(perm="0, 2, 1", inner="{2, -1, 4}"):
    text = SCORES.replace("PERM", perm).replace("int64[3] flat = {-1, 0, 4}", f"int64[3] inner = {inner}")
    return graph.load(onnx.parser.parse_model(text).SerializeToString())


def ran(model, feeds):
    session = onnxruntime.InferenceSession(graph.serialised(model), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_the_scores_are_those_of_numpy_and_one_transpose_is_left():
    random = np.random.default_rng(0)
    query, keys = (random.normal(size=(1, 2, size, 4)).astype(np.float32) for size in (3, 5))
    model = made()
    assert fold_keys(model) == 1
    assert [node.op_type for node in model.graph] == ["Mul", "Transpose", "MatMul"]
    expected = 0.3 * 1.7 * query @ keys.swapaxes(-1, -2)
    assert ran(model, {"query": query, "keys": keys}) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert fold_keys(model) == 0


def test_another_order_of_axes_stays():
    model = made(perm="0, 1, 2", inner="{2, 4, -1}")
    assert fold_keys(model) == 0
    assert len(list(graph.nodes(model, "Reshape"))) == 2
