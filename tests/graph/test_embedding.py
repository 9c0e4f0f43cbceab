"""The table of token embeddings in INT8."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toolchain import graph
from toolchain.graph.embedding import quantize_embedding
from toolchain.runtimes.ort import open_session


def lookup(table):
    """Return a graph that looks rows of a table up."""
    ids = ir.val("input_ids", ir.DataType.INT32, ["n"])
    weight = ir.Value(name="table", const_value=ir.tensor(table, name="table"))
    node = ir.node("Gather", [weight, ids])
    node.outputs[0].name, node.outputs[0].type = "rows", ir.TensorType(ir.DataType.FLOAT)
    made = ir.Graph([ids], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 18}, name="lookup")
    return ir.Model(made, ir_version=9)


def rows_of(model, count):
    ids = np.arange(count, dtype=np.int32)
    return open_session(graph.serialised(model)).run(["rows"], {"input_ids": ids})[0]


@given(arrays(np.float32, (5, 8), elements=st.floats(-100, 100, width=32)))
def test_a_row_is_within_half_a_step_of_its_own_range(table):
    model = lookup(table)
    assert quantize_embedding(model) == 1
    step = np.abs(table).max(axis=1, keepdims=True).astype(np.float64) / 127
    assert (np.abs(rows_of(model, 5) - table.astype(np.float64)) <= step * 0.50001 + 1e-30).all()


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_the_one_table_of_an_encoder_is_stored_in_a_quarter_of_its_bytes(kind, exported, random_batch, reference):
    model, batch = graph.load(exported[kind]), random_batch(kind, 4, 9)
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    assert quantize_embedding(model) == 1
    gone = [before[name] for name in before.keys() - model.graph.initializers.keys()]
    new = [model.graph.initializers[name].const_value for name in model.graph.initializers.keys() - before.keys()]
    assert len(gone) == 1
    assert sum(tensor.nbytes for tensor in new) == gone[0].nbytes / 4 + 4 * gone[0].shape[0]
    found = open_session(graph.serialised(model)).run(["logits"], batch)[0]
    np.testing.assert_allclose(found, reference(kind, batch), atol=0.05)


def test_a_table_with_another_reader_keeps_its_type():
    table = np.ones((4, 3), np.float32)
    model = lookup(table)
    other = ir.node("ReduceSum", [model.graph.initializers["table"]])
    model.graph.append(other)
    model.graph.outputs.append(other.outputs[0])
    assert quantize_embedding(model) == 0
