"""PyTorch compiled, quantized and with CUDA graphs is near the plain model; the capture is a stand-in for CUDA's."""

from functools import partial

import numpy as np
import pytest

from toolchain.checkpoint.model import find_model
from toolchain.errors import MachineError, UsageError
from toolchain.runtimes import cuda_graphs
from toolchain.runtimes.cuda_graphs import GraphRunner
from toolchain.runtimes.pytorch import _logits, _longest, open_module, open_torch
from toolchain.runtimes.quantized import quantize


def repeat(work):
    """Replay by running again; like a graph, it writes to the tensor of the first run."""
    logits = work().clone()
    return lambda: logits.copy_(work()), logits


@pytest.fixture
def recorder(checkpoints):
    """A graph runner of an architecture on the CPU, and the shapes that it captured."""
    opened = []

    def make(kind):
        source, shapes = find_model(str(checkpoints[kind])), []

        def capture(work):
            shapes.append(1)
            return repeat(work)

        module = open_module(source, device="cpu")
        opened.append(module)
        return GraphRunner(partial(_logits, module.__enter__()), "cpu", capture, _longest(source)), shapes

    yield make
    for module in opened:
        module.__exit__(None, None, None)


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_a_graph_runner_gives_the_models_logits_and_captures_a_bucket_once(kind, recorder, random_batch, reference):
    recorder, shapes = recorder(kind)
    for rows, length in ((5, 17), (5, 23), (1, 1), (5, 17), (17, 9)):
        batch = random_batch(kind, rows, length)
        np.testing.assert_allclose(recorder.run(batch), reference(kind, batch), atol=2e-5)
    assert len(shapes) == 3


def test_the_least_recently_used_graph_is_dropped(recorder, random_batch, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MOST_GRAPHS", 2)
    recorder, shapes = recorder("bert")
    for rows in (1, 2, 1, 3, 1):
        recorder.run(random_batch("bert", rows, 8))
    assert list(recorder._kept) == [(3, 8), (1, 8)]
    assert len(shapes) == 3


def test_the_largest_length_is_that_of_the_table_of_positions(checkpoints):
    assert {kind: _longest(find_model(str(path))) for kind, path in checkpoints.items()} == {
        "distilbert": 512,
        "bert": 512,
        "roberta": 512,
    }


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"cuda_graphs": True}, "a CPU has no CUDA graphs"),
        ({"cuda_graphs": True, "attention": "packed"}, "--cuda-graphs: cannot be combined with --attention packed"),
        ({"compiled": True, "attention": "flex"}, "--compile: cannot be combined with --attention flex"),
    ],
)
def test_options_that_exclude_each_other_are_refused(tiny_bert, choices, message):
    with (
        pytest.raises(UsageError, match=message),
        open_torch(find_model(str(tiny_bert)), device="cpu", **choices),
    ):
        pass


@pytest.mark.slow
def test_a_compiled_model_gives_the_same_logits_for_any_shape(tiny_distilbert, random_batch, reference, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.nn.Module, "compile", partial_eager(torch.nn.Module.compile))
    with open_torch(find_model(str(tiny_distilbert)), device="cpu", compiled=True) as infer:
        for rows, length in ((5, 17), (8, 32), (1, 9)):
            batch = random_batch("distilbert", rows, length)
            np.testing.assert_allclose(infer(batch), reference("distilbert", batch), atol=2e-5)


def partial_eager(plain):
    """Trace and guard as torch.compile does, but run the traced graph without a compiler, which takes seconds."""
    return lambda module, **choices: plain(module, backend="aot_eager", **choices)


def test_a_failed_compilation_names_the_option(tiny_bert, random_batch, monkeypatch):
    import torch

    def fail(graph, inputs):
        raise RuntimeError("no compiler here")

    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **choices: plain(module, backend=fail, **choices))
    with (
        open_torch(find_model(str(tiny_bert)), device="cpu", compiled=True) as infer,
        pytest.raises(MachineError, match="--compile: PyTorch cannot compile the model"),
    ):
        infer(random_batch("bert", 2, 9))


@pytest.mark.filterwarnings("ignore")  # torchao warns of kernels for other machines
@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_int8_covers_the_encoder_only_and_is_near(kind, checkpoints, random_batch, reference):
    pytest.importorskip("torchao")
    source, batch = find_model(str(checkpoints[kind])), random_batch(kind, 6, 19)
    with open_module(source, device="cpu") as module:
        assert quantize(module, "int8") == 6 * 2  # 6 linear layers in each of 2 layers
    with open_torch(source, device="cpu", precision="int8") as infer:
        difference = np.abs(infer(batch) - reference(kind, batch)).max()
    assert 0 < difference < 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_in_int8_frees_its_weights(tiny_distilbert, random_batch, reference):
    pytest.importorskip("torchao")
    batch = random_batch("distilbert", 5, 17)
    with open_torch(find_model(str(tiny_distilbert)), device="cpu", precision="int8", compiled=True) as infer:
        assert np.abs(infer(batch) - reference("distilbert", batch)).max() < 0.2


def test_a_missing_torchao_is_an_error_with_advice(tiny_bert, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    with (
        pytest.raises(MachineError, match="pip install torchao"),
        open_torch(find_model(str(tiny_bert)), device="cpu", precision="int8"),
    ):
        pass
