"""Scores of attention are the same with keys that are not moved, and other graphs stay as they are."""

import numpy as np
import onnx
import onnxruntime
import pytest

from toolchain import graph
from toolchain.graph.keys import fold_keys

# As the exporter writes them; FIRST and SECOND are what the Reshape nodes take for their sizes.
SCORES = """
<ir_version: 9, opset_import: ["" : 18]>
attention (float[b, 2, n, 4] query, float[b, 2, p, 4] keys) => (float[b, 2, n, p] scores)
<float a = {0.3}, float c = {1.7}, int64[1] rest = {-1}, int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3},
 int64[1] end = {9223372036854775807}>
{
    sizes = Shape (keys)
    outside = Slice (sizes, zero, two)
    heads = Slice (sizes, rest, end)
    positions = Slice (sizes, two, rest)
    size = Slice (sizes, three, end)
    inner = Concat <axis = 0> (FIRST)
    outer = Concat <axis = 0> (SECOND)
    left = Mul (query, a)
    rows = Reshape <allowzero = 0> (keys, inner)
    turned = Transpose <perm = [PERM]> (rows)
    by_head = Reshape <allowzero = 0> (turned, outer)
    right = Mul (by_head, c)
    scores = MatMul (left, right)
}
"""


def made(perm="0, 2, 1", first="rest, positions, size", second="outside, size, positions"):
    text = SCORES.replace("PERM", perm).replace("FIRST", first).replace("SECOND", second)
    return graph.load(onnx.parser.parse_model(text).SerializeToString())


def ran(model, feeds):
    session = onnxruntime.InferenceSession(graph.serialised(model), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.fixture
def feeds():
    """A query of three positions, and keys of four: as many as each has numbers, so that a wrong order of axes fits."""
    random = np.random.default_rng(0)
    return {name: random.normal(size=(1, 2, size, 4)).astype(np.float32) for name, size in (("query", 3), ("keys", 4))}


def test_the_scores_are_those_of_numpy_and_one_transpose_is_left(feeds):
    model = made()
    assert fold_keys(model) == 1
    assert [node.op_type for node in model.graph] == ["Mul", "Transpose", "MatMul"]
    expected = 0.3 * 1.7 * feeds["query"] @ feeds["keys"].swapaxes(-1, -2)
    assert ran(model, feeds) == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert fold_keys(model) == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"perm": "0, 1, 2"},
        {"first": "rest, size, positions"},
        {"second": "outside, positions, size"},
        {"first": "rest, two, size"},
        {"first": "positions, rest, size"},
    ],
    ids=["no transpose", "sizes in another order", "parted in another order", "a size of its own", "rows last"],
)
def test_other_axes_stay_as_they_are(feeds, changed):
    model = made(**changed)
    before = ran(model, feeds)
    assert fold_keys(model) == 0
    assert len(list(graph.nodes(model, "Reshape"))) == 2
    assert np.array_equal(ran(model, feeds), before)
