"""The typed graph of a language model has the weights that its bits give, and NVIDIA's compiler takes it."""

import json

import numpy as np
import onnxruntime
import pytest

from toolchain import graph
from toolchain.base.amounts import megabytes
from toolchain.cli import main
from toolchain.cli.show.perplexity import passes
from toolchain.generate.decode_ort import PAST, PRESENT
from toolchain.generate.typed import quantize_blocks, to_typed

ROWS, BEFORE, NEW = 2, 5, 3


def ran(model, *, cache_type):
    """Return the outputs for tokens behind a random cache."""
    options = onnxruntime.SessionOptions()
    # ONNX Runtime 1.31.1 ends with a segmentation fault in its last level of optimisations of the graph in float16.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(graph.serialised(model), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {
        "input_ids": random.integers(5, 30, (ROWS, NEW)),
        "position_ids": np.tile(np.arange(BEFORE, BEFORE + NEW), (ROWS, 1)),
        "attention_mask": np.ones((ROWS, BEFORE + NEW), np.int64),
        "logits_to_keep": np.array([NEW - 1]),
    }
    for entry in session.get_inputs():
        if entry.name.startswith(PAST):
            shape = (ROWS, entry.shape[1], BEFORE, entry.shape[3])
            feeds[entry.name] = random.normal(size=shape).astype(np.float16).astype(cache_type)
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize(("bits", "near"), [(None, 0.01), (8, 0.05), (4, 0.5)])
def test_logits_are_near_those_of_float32_and_the_cache_is_float16(built, bits, near):
    _, output, _ = built
    model, known = graph.load(output / "model.onnx"), graph.load(output / "model.onnx")
    products = sum(1 for _ in graph.nodes(known, "MatMul", "Gemm")) - 2 * len(list(graph.nodes(known, "Softmax")))
    assert to_typed(model, bits) == (products if bits else 0)
    found, expected = ran(model, cache_type=np.float16), ran(known, cache_type=np.float32)
    scale = np.abs(expected["logits"]).max()
    assert 0 < np.abs(found["logits"] - expected["logits"]).max() < near * scale
    assert found["logits"].dtype == np.float32
    kept = [name for name in found if name.startswith(PRESENT)]
    assert kept
    assert {found[name].dtype for name in kept} == {np.dtype(np.float16)}
    assert all(found[name].shape[2] == BEFORE + NEW for name in kept)


def test_a_block_has_the_scale_of_its_largest_weight():
    weight = np.random.default_rng(1).normal(size=(64, 3)).astype(np.float32)
    weight[32:, 1] = 0
    numbers, scale = quantize_blocks(weight)
    assert scale.shape == (2, 3)
    assert np.abs(numbers).max() == 7
    each = np.repeat(scale, 32, axis=0)
    assert np.all(np.abs(numbers * each - weight) <= 0.5001 * each)


def test_nvidias_compiler_takes_the_prompt_and_a_step(built, tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'encoder-toolchain[rtx]'")
    _, output, _ = built
    assert main(["explain", str(output), "--target", "t4", "--seq-len", "16", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    layers = len(list(graph.nodes(graph.load(output / "model.onnx"), "Softmax")))
    assert [(one["phase"], one["precision"]) for one in record["passes"]] == [
        (phase, precision) for precision in ("fp16", "int8") for phase in ("prompt", "step")
    ]
    for one in record["passes"]:
        assert one["refused"] is None
        # INT8 weights are dequantized, some in a kernel before their GEMM.
        assert set(one["gemms"]) <= {"fp16 x fp16", *(["fp16 x int8"] if one["precision"] == "int8" else [])}
        # The compiler's log shows no GEMM of its own for one row of the tiny Llama.
        assert one["gemms"] or one["phase"] == "step"
        assert one["kernels"] > 0
        assert one["bytes"] > 0
        assert one["us"] > 0
    assert record["passes"][1]["fused_attention"] == layers
    assert "`generate` runs no such plan" in record["answer"]
    passes(record)
    shown = capsys.readouterr().out
    assert "t4: 1 row, 16 tokens, " in shown
    assert f" {megabytes(record['passes'][0]['bytes'])} " in shown
    assert " 0 MB" not in shown
    assert main(["explain", str(output), "--target", "t4"]) == 2  # 128 tokens of 96 positions
    assert "--seq-len 128: the model has 96 positions. Give 95 or less." in capsys.readouterr().err
