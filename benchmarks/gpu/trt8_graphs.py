"""Write the graphs of stage `trt8` and their expected outputs: `python trt8_graphs.py OUT_FOLDER`. `pack.py` calls it.

The model is a DistilBERT with two layers, width 256, head size 64 and random weights, which the project exports.

    fp32.onnx       its graph in the operators and the opset of TensorRT 8.5 (a LayerNorm is several operators)
    qdq.onnx        the same graph with Q/DQ nodes before every MatMul, with scales in float32
    sums.onnx       one INT8 GEMM with sums above 65,504, the largest float16 number
    reference.npz   the ids and the mask, the logits by ONNX Runtime, and the exact sums of the GEMM
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ROWS, LENGTH, VOCABULARY = 8, 128, 2500

Array = NDArray[Any]


def export(folder: Path) -> Path:
    """Write the checkpoint and, with the project's exporter, its graph model.onnx; return the path of the graph."""
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    from toolchain.checkpoint.export import export as project_export
    from toolchain.checkpoint.model import find_model
    from toolchain.data import demo

    torch.manual_seed(0)
    sizes = {"dim": 256, "n_layers": 2, "n_heads": 4, "hidden_dim": 512}
    config = DistilBertConfig(vocab_size=VOCABULARY, initializer_range=0.06, **sizes)
    DistilBertForSequenceClassification(config).save_pretrained(folder / "checkpoint")
    for name in ("tokenizer.json", "tokenizer_config.json"):  # a checkpoint has one, and its export runs sentences
        shutil.copy(demo.FOLDER / name, folder / "checkpoint")
    project_export(find_model(str(folder / "checkpoint")), folder / "model.onnx")
    return folder / "model.onnx"


def lowered(file: Path) -> onnx.ModelProto:
    """Return a float32 graph rewritten in the operators of TensorRT 8 by the project's own graph pass."""
    from toolchain import graph
    from toolchain.graph.trt8 import for_trt8

    model = graph.load(file)
    for_trt8(model)
    made = onnx.load_from_string(graph.serialised(model))
    onnx.checker.check_model(made)
    return made


def run(model: onnx.ModelProto, batch: dict[str, Array], outputs: list[str] | None = None) -> list[Array]:
    """Run a batch in ONNX Runtime, and return the graph's outputs, or the inner tensors that `outputs` names."""
    if outputs:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
        model = copy
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(outputs, {one.name: batch[one.name] for one in session.get_inputs()})


def quantized(model: onnx.ModelProto, batch: dict[str, Array]) -> onnx.ModelProto:
    """Return the graph with a Q/DQ pair before each input of every MatMul.

    The scale of an activation comes from its largest absolute value in `batch`. A weight has a scale for each column.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    matmuls = [node for node in graph.node if node.op_type == "MatMul"]
    tensors = list(dict.fromkeys(name for node in matmuls for name in node.input if name not in weights))
    amax = {name: float(np.abs(value).max()) for name, value in zip(tensors, run(model, batch, tensors), strict=True)}
    pairs: dict[str, list[onnx.NodeProto]] = {}
    for node in matmuls:
        for index, name in enumerate(list(node.input)):
            if name not in pairs:
                weight = weights.get(name)
                scale = np.float32(amax[name] / 127) if weight is None else np.abs(weight).max(0) / 127
                pairs[name] = qdq_pair(graph, name, scale, {} if weight is None else {"axis": 1})
            node.input[index] = f"{name}.dq"
    ordered = [one for name in list(pairs) if name in weights for one in pairs.pop(name)]
    for node in graph.node:
        ordered.append(node)
        for name in node.output:
            ordered += pairs.pop(name, [])
    assert not pairs
    copies = [onnx.NodeProto.FromString(one.SerializeToString()) for one in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    onnx.checker.check_model(made)
    return made


def qdq_pair(graph: onnx.GraphProto, name: str, scale: Array, axis: dict[str, int]) -> list[onnx.NodeProto]:
    """Return a QuantizeLinear and a DequantizeLinear node for the tensor `name`, and add their scale to the graph.

    `axis` has the attribute `axis` of both nodes, or is empty for one scale per tensor.
    """
    zero = np.zeros(np.shape(scale), np.int8)
    graph.initializer.append(numpy_helper.from_array(np.asarray(scale, np.float32), f"{name}.s"))
    graph.initializer.append(numpy_helper.from_array(zero, f"{name}.z"))
    q = ["QuantizeLinear", [name, f"{name}.s", f"{name}.z"], [f"{name}.q"], f"{name}.Q"]
    dq = ["DequantizeLinear", [f"{name}.q", f"{name}.s", f"{name}.z"], [f"{name}.dq"], f"{name}.DQ"]
    return [helper.make_node(*one, **axis) for one in (q, dq)]


def sums() -> tuple[onnx.ModelProto, Array, Array]:
    """Return a graph with one INT8 GEMM (Q/DQ nodes), its float32 input, and its exact integer sums and outputs."""
    k, n, m = 256, 64, 64
    generator = np.random.default_rng(0)
    w = np.clip(np.arange(1, n + 1)[None, :] * 2 - generator.integers(0, 2, (k, n)), 1, 127).astype(np.int64)
    w[0] = 127  # the largest of each column, so that its scale gives these integers back
    s_x, s_w = 2.0**-4, 2.0**-14 * (1 + np.arange(n) / n)
    q = generator.integers(1, 128, (m, 1)) * np.ones((1, k), np.int64)
    arrays = {
        "s_x": np.float32(s_x),
        "z": np.int8(0),
        "w": (w * s_w).astype(np.float32),
        "s_w": s_w.astype(np.float32),
        "zw": np.zeros(n, np.int8),
        "b": np.ones(n, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s_x", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s_x", "z"], ["xd"]),
        helper.make_node("QuantizeLinear", ["w", "s_w", "zw"], ["wq"], axis=1),
        helper.make_node("DequantizeLinear", ["wq", "s_w", "zw"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["logits"]),
    ]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [m, k])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [m, n])]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    exact = (q @ w) * (s_x * s_w) + 1
    found = run(model, {"x": (q * s_x).astype(np.float32)})[0]
    assert np.abs(found / exact - 1).max() < 1e-5, (
        "ONNX Runtime's outputs differ from the exact ones: the weights are not quantized to the intended integers"
    )
    return model, (q * s_x).astype(np.float32), np.stack([(q @ w).astype(np.float64), exact])


def main(folder: Path) -> None:
    """Write all graphs and reference.npz into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(1)
    lengths = generator.integers(8, LENGTH + 1, ROWS)
    lengths[0] = LENGTH
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    batch = {"input_ids": (generator.integers(5, VOCABULARY, (ROWS, LENGTH)) * mask).astype(np.int32)}
    batch["attention_mask"] = mask
    exported = export(folder)
    expected = {"logits": run(onnx.load(exported), batch)[0]}
    fp32 = lowered(exported)
    expected["fp32"] = run(fp32, batch)[0]
    qdq = quantized(fp32, batch)
    expected["qdq"] = run(qdq, batch)[0]
    gemm, x, exact = sums()
    for name, model in (("fp32", fp32), ("qdq", qdq), ("sums", gemm)):
        onnx.save(model, folder / f"{name}.onnx")
    np.savez(folder / "reference.npz", **batch, **expected, x=x, sums=exact[0], exact=exact[1])
    off = {name: float(np.abs(expected[name] - expected["logits"]).max()) for name in ("fp32", "qdq")}
    print("trt8 graphs: logits of the first row", expected["logits"][0], "largest |difference| from the export", off)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
