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


def first_outputs(bundle, tokens, found):
    """Return the outputs of the first GEMM and its bias for the real tokens, by each graph of the student `found`.

    Each is a pair: as the graph computes them, and with FP32's weights and bias on the same rounded activations.
    """
    teacher, inputs = teacher_graph(bundle), as_tensors(tokens)
    first = next(node for node in graph.nodes(teacher.model, "MatMul"))
    add = next(iter(first.outputs[0].uses())).node
    weight, bias = (
        teacher.fixed[next(value for value in node.inputs if value.is_initializer())] for node in (first, add)
    )
    real, outputs = inputs["attention_mask"].bool(), []
    with torch.no_grad():
        for made in found.graphs.values():
            values = {value.name: one for value, one in made.run(inputs).items()}
            read = next(node for node in graph.nodes(made.model, "MatMul") if node.name == first.name).inputs[0]
            outputs.append((values[add.outputs[0].name][real], (values[read.name] @ weight + bias)[real]))
    return outputs


def test_the_outputs_of_the_first_gemms_err_less_and_weights_leave_their_mean(bundle, tokens_of):
    tokens, student = tokens_of("distilbert", 8), student_of(bundle, keep=None, residual=None)

    def errors():
        return [one - exact for one, exact in first_outputs(bundle, tokens, student)]

    before = errors()
    assert reconstruct(student, teacher_graph(bundle).model, tokens) == 12
    after = errors()
    assert sum(float(one.square().sum()) for one in after) < sum(float(one.square().sum()) for one in before)
    mean_before, mean_after = (float(torch.cat(one).mean(dim=0).abs().max()) for one in (before, after))
    assert mean_after < 0.1 * mean_before  # not 0: scales of the graph for TensorRT are rounded to float16
