"""Weights that are rounded in turn, against those that are rounded to the nearest level."""

import numpy as np
import pytest
import torch

from toolchain import graph
from toolchain.distill.fake_quantize import fake_weight, student_of, teacher_graph
from toolchain.distill.flow import Flow
from toolchain.distill.reconstruct import reconstruct, round_in_turn


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


def test_the_outputs_of_the_first_gemms_come_nearer_to_fp32(bundle, tokens_of):
    tokens, student, teacher = (
        tokens_of("distilbert", 8),
        student_of(bundle, keep=None, residual=None),
        teacher_graph(bundle),
    )
    inputs = as_tensors(tokens)
    real = inputs["attention_mask"].bool()
    first = next(node for node in graph.nodes(teacher.model, "MatMul"))
    end = next(iter(first.outputs[0].uses())).node.outputs[0].name  # with its bias

    def errors():
        with torch.no_grad():
            ends = [
                {value.name: one for value, one in made.run(inputs).items()}[end]
                for made in (teacher, *student.graphs.values())
            ]
        return [(one - ends[0])[real] for one in ends[1:]]

    before = errors()
    assert reconstruct(student, teacher, tokens) == 12
    after = errors()
    assert sum(float(one.square().sum()) for one in after) < sum(float(one.square().sum()) for one in before)
    mean_before, mean_after = (float(torch.cat(one).mean(dim=0).abs().max()) for one in (before, after))
    assert mean_after < 0.1 * mean_before  # not 0: scales of the graph for TensorRT are rounded to float16
