"""The counted work of a graph agrees with formulas, with PyTorch's own counter, and with the size of the weights."""

import numpy as np
import onnx_ir as ir
import pytest

from toolchain import graph
from toolchain.errors import InputError
from toolchain.graph.fp16 import to_half
from toolchain.int8.calibrate import calibrate
from toolchain.int8.quantize import CPU, TENSORRT, quantize
from toolchain.profile.roofline.work import Extent, Work, count

KINDS = ("distilbert", "bert", "roberta")


def formula(rows, length, *, layers, hidden, inner, head):
    """Return the operations of an encoder: twice its multiply-accumulates (Vaswani et al., 2017, section 3)."""
    linear = 4 * hidden * hidden + 2 * hidden * inner
    return 2 * rows * (layers * length * (linear + 2 * length * hidden) + head)


@pytest.fixture(scope="module")
def typed(exported, tokens_of):
    """Return the graphs of one model: as exported, in float16, in INT8 for TensorRT and for a CPU."""
    made = {name: graph.load(exported["distilbert"]) for name in ("fp32", "fp16", "int8", "cpu")}
    ranges = calibrate(graph.load(exported["distilbert"]), tokens_of("distilbert", 16), method="minmax")
    to_half(made["fp16"])
    quantize(made["int8"], ranges, TENSORRT)
    to_half(made["int8"])
    quantize(made["cpu"], ranges, CPU)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_count_equals_pytorchs(kind, exported, checkpoints, random_batch):
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(checkpoints[kind], attn_implementation="eager").eval()
    batch = {name: torch.from_numpy(array).long() for name, array in random_batch(kind, 3, 11).items()}
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(**batch)
    found = count(graph.load(exported[kind])).operations(Extent.of([11, 11, 11]))
    assert found == {"fp32": counter.get_total_flops()}


def test_the_count_equals_the_formula(exported, tiny):
    sizes = {"layers": tiny.LAYERS, "hidden": tiny.HIDDEN, "inner": 2 * tiny.HIDDEN}
    expected = formula(5, 17, **sizes, head=tiny.HIDDEN * (tiny.HIDDEN + 2))
    assert count(graph.load(exported["distilbert"])).operations(Extent.of([17] * 5)) == {"fp32": expected}


def test_the_work_of_rows_adds_up(exported):
    work, lengths = count(graph.load(exported["bert"])), [3, 9, 20]
    alone = sum(work.operations(Extent.of([length]))["fp32"] for length in lengths)
    assert work.operations(Extent.of(lengths))["fp32"] == alone
    assert work.operations(Extent.of([20] * 3))["fp32"] > alone


def test_the_precision_changes_and_the_work_does_not(typed):
    found = {name: count(model) for name, model in typed.items()}
    rows = Extent.of([10, 20])
    assert len({sum(work.operations(rows).values()) for work in found.values()}) == 1
    assert set(found["fp16"].flop) == {"fp16"}
    assert set(found["int8"].flop) == {"int8", "fp16"}
    assert set(found["cpu"].flop) == {"int8", "fp32"}
    assert found["cpu"].flop["fp32"][1:] == (0, 0)  # the head alone


def test_a_device_without_a_precision_runs_another(typed):
    assert set(count(typed["fp16"], runs_as={"fp16": "fp32"}).flop) == {"fp32"}
    assert set(count(typed["int8"], integers=False).flop) == {"fp16"}


def test_bytes_are_those_of_all_parameters_except_embedding_tables(typed, checkpoints):
    from safetensors.numpy import load_file

    weights = load_file(checkpoints["distilbert"] / "model.safetensors")
    sizes = {name: array.size for name, array in weights.items() if "_embeddings" not in name}
    inner = sum(size for name, size in sizes.items() if "layer." in name and "lin" in name and name.endswith("weight"))
    head = sum(size for name, size in sizes.items() if "classifier" in name)
    found = {name: count(model).weight_bytes for name, model in typed.items()}
    assert found["fp32"]["fp32"] == pytest.approx(4 * sum(sizes.values()), rel=0.05)  # equal ones are stored once
    assert found["fp16"]["fp16"] == pytest.approx(2 * (inner + head), rel=0.05)  # and their biases
    assert found["int8"]["int8"] == pytest.approx(inner, rel=0.05)  # and their zero points
    assert found["cpu"]["int8"] == found["int8"]["int8"]


def test_weights_move_once_a_batch_less_the_cache():
    work = Work({"int8": (0, 100, 1)}, {"int8": 1000, "fp32": 10}, inputs=2, outputs=3)
    extent = Extent(rows=4, tokens=40, pairs=400, batches=5)
    crossing = 40 * 2 * 4 + 4 * 3 * 4
    assert work.bytes_moved(extent) == 5 * 1040 + crossing
    assert work.bytes_moved(extent, cache_bytes=1000) == 5 * 40 + crossing
    assert work.bytes_moved(extent, cache_bytes=10**6) == crossing


def test_retyped_keeps_operations_and_numbers():
    work = Work({"int8": (0, 100, 1), "fp32": (7, 0, 0)}, {"int8": 1000, "fp32": 10}, inputs=2, outputs=3)
    half = work.retyped("bf16")
    assert half.flop == {"bf16": (7, 100, 1)}
    assert half.weight_bytes == {"bf16": 2020}


@pytest.mark.slow
def test_the_shared_model_takes_21_megaflop_a_token(real_export):
    _, token, pair = count(graph.load(real_export("sst2") / "model.onnx")).flop["fp32"]
    assert token == pytest.approx(21.2e6, rel=0.01)
    assert pair == 4 * 6 * 384


def test_distilbert_base_takes_11_gigaflop_for_128_tokens():
    """The formula is the one that the count of a graph is compared with; 11.17 was computed by hand."""
    found = formula(1, 128, layers=6, hidden=768, inner=3072, head=768 * 770)
    assert found == pytest.approx(11.17e9, rel=0.01)


def test_a_gemm_of_unknown_size_is_refused(exported):
    model = graph.load(exported["distilbert"])
    node = next(graph.nodes(model, "MatMul"))
    node.outputs[0].shape = None
    with pytest.raises(InputError, match=r"not give the shape of this (GEMM|tensor)\. Build the bundle again"):
        count(model)


def test_a_fused_operator_is_refused(exported):
    model = graph.load(exported["distilbert"])
    node = next(graph.nodes(model, "Softmax"))
    model.graph.insert_after(node, ir.node("Attention", [node.outputs[0]], domain="com.microsoft", name="fused"))
    with pytest.raises(InputError, match="fused: the operations of the fused operator Attention cannot be counted"):
        count(model)


def test_an_extent_sums_real_lengths():
    lengths = np.array([2, 3])
    assert Extent.of(lengths) == Extent(rows=2, tokens=5, pairs=13)
