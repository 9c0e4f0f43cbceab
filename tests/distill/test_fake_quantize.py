"""The student, against the quantizer and the graphs of a build."""

import shutil

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from toolchain import graph
from toolchain.distill import heal
from toolchain.distill.fake_quantize import _made, compare_sites, fake_weight, student_of, teacher_of
from toolchain.errors import InputError
from toolchain.graph.smooth import exponents
from toolchain.int8.calibrate import Calibration, channel_amax, read_calibration, write_calibration
from toolchain.int8.quantize import quantize_weight


@pytest.fixture(scope="module")
def bundle(begun, once):
    return once("to-heal", lambda folder: begun("int8", folder))


def inputs_of(tokens):
    batch = tokens.batch(np.arange(len(tokens)))
    return batch, {name: torch.from_numpy(array).long() for name, array in batch.items()}


def test_a_weight_is_rounded_as_the_quantizer_rounds_it_and_its_gradient_is_passed_on():
    weight = torch.randn(16, 8, requires_grad=True)
    integers, scale = quantize_weight(weight.detach().numpy())
    found = fake_weight(weight, halves=False)
    np.testing.assert_allclose(found.detach().numpy(), integers * scale, atol=1e-6)
    found.sum().backward()
    torch.testing.assert_close(weight.grad, torch.ones(16, 8))
    halves = fake_weight(weight.detach(), halves=True).numpy()
    np.testing.assert_allclose(halves, integers * scale.astype(np.float16).astype(np.float32), atol=1e-6)


def test_the_student_is_the_graphs_and_another_scale_is_noticed(bundle, tokens_of):
    tokens, student = tokens_of("distilbert", 8), student_of(bundle, keep=None, residual=None)
    heal.prove(student, tokens, bundle)
    made = student.graphs["model.int8.cpu.onnx"]
    assert all(compare_sites(one, tokens).relative < 1e-5 for one in student.graphs.values())
    node = next(graph.nodes(made.model, "QuantizeLinear"))
    made.fixed[node.inputs[1]].mul_(1.02)
    with pytest.raises(InputError, match=r"model\.int8\.cpu\.onnx: cannot be healed"):
        heal.prove(student, tokens, bundle)


def test_the_student_of_a_smoothed_mixed_graph_is_that_graph(bundle, tokens_of, tmp_path):
    shutil.copytree(bundle, tmp_path, dirs_exist_ok=True)
    known = read_calibration(tmp_path / "calibration.json")
    tokens, model = tokens_of("distilbert", 8), graph.load(tmp_path / "model.onnx")
    powers = exponents(model, channel_amax(model, tokens), 0.7)
    about = {**known.about, "keep": ["distilbert.transformer.layer.0.ffn.lin2"], "residual": "int8"}
    write_calibration(tmp_path, Calibration(known.ranges, powers, about))
    student = student_of(tmp_path, keep=None, residual=None)
    assert all(compare_sites(one, tokens).relative < 1e-5 for one in student.graphs.values())
    heal.prove(student, tokens, tmp_path)  # does not refuse it


def test_a_quantized_weight_that_the_smoothed_graph_lacks_is_refused():
    scale, zero = np.ones(2, np.float32), np.zeros(2, np.int8)
    constants = {"w": np.ones((2, 2), np.int8), "s": scale, "z": zero}
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1),
        onnx.helper.make_node("MatMul", ["x", "d"], ["y"], name="one"),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1, 2]) for name in ("x", "y")]
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = ir.from_proto(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], arrays)))
    with pytest.raises(InputError, match="the weight of one is not in the graph without Q/DQ"):
        _made(model, {}, {"one": "w"})


def test_graphs_of_changed_weights_are_what_the_student_is_with_them(bundle, tokens_of):
    student, tokens = student_of(bundle, keep=None, residual=None), tokens_of("distilbert", 8)
    with torch.no_grad():
        for one in student.module:
            one.mul_(1 + 0.05 * torch.randn_like(one))
    made = student_of(bundle, keep=None, residual=None, healed=student.weights())
    heal.prove(made, tokens, bundle)
    _, inputs = inputs_of(tokens)
    with torch.no_grad():
        torch.testing.assert_close(made.model.run(inputs).logits, student.model.run(inputs).logits)


def test_a_batch_is_shared_by_both_graphs_and_its_order_stays(bundle, tokens_of):
    student, (_, inputs) = student_of(bundle, keep=None, residual=None), inputs_of(tokens_of("distilbert", 5))
    with torch.no_grad():
        found, each = student.model.run(inputs), [one.logits(inputs) for one in student.graphs.values()]
        wanted = teacher_of(bundle).run(inputs)
    torch.testing.assert_close(found.logits[0::2], each[0][0::2], atol=2e-2, rtol=0)
    torch.testing.assert_close(found.logits[1::2], each[1][1::2], atol=2e-2, rtol=0)
    assert [one.shape for one in found.hidden] == [one.shape for one in wanted.hidden]
    assert len(wanted.hidden) >= 2


def test_every_weight_that_is_trained_gets_a_gradient(bundle, tokens_of):
    student, (_, inputs) = student_of(bundle, keep=None, residual=None), inputs_of(tokens_of("distilbert", 4))
    student.model.run(inputs).logits.square().sum().backward()
    silent = [name for name, one in zip(student.names, student.module, strict=True) if one.grad is None]
    assert silent == []
