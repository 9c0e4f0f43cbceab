"""Graphs fused for CUDA: every layer is fused, and the CPU kernels of the same operators give the same logits."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.errors import InputError
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.graph.ort_cuda import FUSIONS, for_cuda, fuse_skip_norms
from toolchain.profile.roofline.work import Extent, count
from toolchain.runtimes.ort import open_ort, open_session

KINDS = ["distilbert", "bert", "roberta"]
LAYERS = 2  # as in tests/tiny.py
FUSED = {
    "attention": ("MultiHeadAttention", LAYERS),
    "skip_norms": ("SkipLayerNormalization", 2 * LAYERS),
    "gelu": ("BiasGelu", LAYERS),
}


def run(model, batch):
    return open_session(graph.serialised(model)).run(["logits"], batch)[0]


def opened(kind, exported, run_pass=for_cuda):
    model = graph.load(exported[kind])
    found = run_pass(model)
    model.graph.opset_imports["com.microsoft"] = 1
    return model, found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FUSIONS)
def test_each_pass_keeps_the_logits_of_padded_rows(kind, name, exported, random_batch, reference):
    model, changed = opened(kind, exported, FUSIONS[name])
    operator, expected = FUSED[name]
    assert (changed, sum(1 for _ in graph.nodes(model, operator))) == (expected, expected)
    batch = random_batch(kind, 6, 19)
    assert (batch["attention_mask"] == 0).any()
    np.testing.assert_allclose(run(model, batch), reference(kind, batch), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_logits(kind, exported, tokens_of, reference):
    model, _ = opened(kind, exported)
    tokens = tokens_of(kind, 8)
    alone = np.concatenate([run(model, tokens.batch(np.array([row]))) for row in range(8)])
    np.testing.assert_allclose(alone, run(model, tokens.batch(np.arange(8), length=40)), atol=2e-5)
    np.testing.assert_allclose(alone, reference(kind, tokens.batch(np.arange(8))), atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_gemms_of_a_layer_are_not_fused(kind, exported):
    model, _ = opened(kind, exported)
    left = Counter(node.op_type for node in model.graph)
    assert left["MatMul"] == 6 * LAYERS
    assert left["LayerNormalization"] == 1  # of the embeddings
    assert not {"Softmax", "Erf", "Transpose", "Reshape"} & set(left)


def test_a_row_without_tokens_does_not_change_other_rows(exported, random_batch, reference):
    model, _ = opened("bert", exported)
    batch = random_batch("bert", 4, 9)
    batch["attention_mask"][3] = 0
    found = run(model, batch)
    alone = {name: array[:3] for name, array in batch.items()}
    np.testing.assert_allclose(found[:3], reference("bert", alone), atol=2e-5)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("kind", KINDS)
def test_in_float16_only_the_logits_have_a_cast(kind, exported):
    model, _ = opened(kind, exported)
    to_half(model)
    half, full = ir.DataType.FLOAT16, ir.DataType.FLOAT
    for operator in ("MatMul", "Gemm", "LayerNormalization", *(operator for operator, _ in FUSED.values())):
        assert {value.dtype for node in graph.nodes(model, operator) for value in node.inputs if value is not None} <= {
            half,
            ir.DataType.INT32,
        }
    halves = [
        node for node in graph.nodes(model, "Cast") if {half, full} == {node.inputs[0].dtype, node.outputs[0].dtype}
    ]
    assert [node.outputs[0].name for node in halves] == ["logits"]


def test_rows_that_are_not_padded_on_the_right_are_refused(exported, random_batch):
    model, _ = opened("distilbert", exported)
    batch = random_batch("distilbert", 3, 9)
    with open_ort(graph.serialised(model), device="cpu") as infer:
        infer(batch)
        with pytest.raises(InputError, match="takes only rows that are padded on the right"):
            infer({name: array[:, ::-1] for name, array in batch.items()})


def test_scores_with_another_mask_are_not_fused_and_reported(exported):
    model = graph.load(exported["bert"])
    softmax = next(graph.nodes(model, "Softmax"))
    add = softmax.inputs[0].producer()
    mask = next(index for index, value in enumerate(add.inputs) if value.shape[1] == 1)
    add.replace_input_with(mask, graph.add_initializer(model, "other", np.zeros((1, 1, 1, 1), np.float32)))
    with pytest.raises(InputError, match="the fusion attention for CUDA fits only 1 of 2"):
        for_cuda(model)


def test_the_addition_of_embeddings_is_not_fused(exported):
    model = graph.load(exported["bert"])
    first = next(graph.nodes(model, "LayerNormalization"))
    fuse_skip_norms(model)
    assert first in set(model.graph)


@pytest.mark.parametrize("kind", KINDS)
def test_its_work_equals_that_of_the_parts_without_the_skipped_part_of_the_last_layer(kind, exported):
    model, _ = opened(kind, exported)
    apart = graph.load(exported[kind])
    first_token(apart)
    extent = Extent.of([7, 19])
    assert count(model).operations(extent) == count(apart).operations(extent)
