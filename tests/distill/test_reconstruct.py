"""Weights that are rounded in turn, against those that are rounded to the nearest level."""

import numpy as np
import pytest
import torch

from toolchain import graph
from toolchain.distill.fake_quantize import fake_weight, student_of, teacher_graph
from toolchain.distill.flow import Flow
from toolchain.distill.reconstruct import BIASES, reconstruct, round_in_turn


@pytest.fixture(scope="module")
def bundle(begun, once):
    return once("to-heal", lambda folder: begun("int8", folder))


def as_tensors(tokens):
    batch = tokens.batch(np.arange(len(tokens)))
    return {name: torch.from_numpy(array).long() for name, array in batch.items()}


def test_weights_rounded_in_turn_err_less_and_the_quantizer_finds_the_same_levels():
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(2000, 160, generator=generator) @ torch.randn(160, 160, generator=generator)
    weight = torch.randn(160, 24, generator=generator)
    made = round_in_turn(weight.double(), (mixed.T @ mixed).double()).float()
    nearest = fake_weight(weight, halves=False)
    errors = [float((mixed @ (one - weight)).square().sum()) for one in (made, nearest)]
    assert errors[0] < 0.7 * errors[1]
    np.testing.assert_allclose(fake_weight(made, halves=False), made, atol=1e-6)


def test_weights_of_zeros_stay():
    assert not round_in_turn(torch.zeros(8, 3).double(), torch.eye(8).double()).any()


def test_a_flow_has_the_values_of_the_whole_graph(bundle, tokens_of):
    made = student_of(bundle, keep=None, residual=None).graphs["model.int8.cpu.onnx"]
    inputs = as_tensors(tokens_of("distilbert", 6))
    with torch.no_grad():
        whole, flow = made.run(inputs), Flow(made, [inputs, inputs])
    for node in graph.nodes(made.model, "MatMul"):
        for one in flow.advance(node):
            torch.testing.assert_close(one, whole[node.inputs[0]])


def first_outputs(bundle, tokens, found):
    """Return, of the first GEMM and its bias for the real tokens, the outputs in each graph less those in FP32."""
    teacher, inputs = teacher_graph(bundle), as_tensors(tokens)
    first = next(node for node in graph.nodes(teacher.model, "MatMul"))
    add = next(iter(first.outputs[0].uses())).node.outputs[0].name
    with torch.no_grad():
        exact, *others = (
            {value.name: one for value, one in made.run(inputs).items()}[add]
            for made in (teacher, *found.graphs.values())
        )
    real = inputs["attention_mask"].bool()
    return [(one - exact)[real] for one in others]


@pytest.mark.parametrize("bias", BIASES)
def test_the_outputs_of_the_first_gemms_err_less_and_the_bias_takes_their_middle(bundle, tokens_of, bias):
    tokens, student = tokens_of("distilbert", 8), student_of(bundle, keep=None, residual=None)
    before = first_outputs(bundle, tokens, student)
    assert reconstruct(student, teacher_graph(bundle), tokens, bias) == 12
    after = first_outputs(bundle, tokens, student)
    assert sum(float(one.square().sum()) for one in after) < sum(float(one.square().sum()) for one in before)
    middle_before, middle_after = (float(BIASES[bias](torch.cat(one)).abs().max()) for one in (before, after))
    assert middle_after < 0.1 * middle_before  # not 0: scales of the graph for TensorRT are rounded to float16


def test_few_tokens_do_not_move_the_robust_mean():
    errors = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 1.0, -5.0])
    errors[:50] += 1000
    assert float(BIASES["mean"](errors)[0]) > 9
    np.testing.assert_allclose(BIASES["robust"](errors), [0, 1, -5], atol=0.1)
    lopsided = torch.rand(20000, 1, generator=torch.Generator().manual_seed(1))  # no value is far, so it is the mean
    np.testing.assert_allclose(BIASES["robust"](lopsided), lopsided.mean(dim=0), atol=1e-6)
