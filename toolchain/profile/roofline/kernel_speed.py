"""Measure, on this CPU, the fraction of a graph's time in GEMMs, and how much faster integer GEMMs are than float32."""

import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir

from toolchain.base.tensors import Array, Batch
from toolchain.graph import add_initializer, serialised
from toolchain.int8.coverage import FLOAT_GEMMS, INTEGER_GEMMS
from toolchain.runtimes.ort import open_session

# Side of the square GEMM with which kernels are timed: about the tokens of a batch, and about the hidden size of an
# encoder.
SIZE = 512

ROUNDS = 7


def share_of_time(model: Path, batch: Batch) -> float:
    """Return the fraction, 0 to 1, of a graph's time that it spends in GEMMs, by the profiler of ONNX Runtime."""
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(model, profile=Path(folder) / "profile")
        names = {entry.name for entry in session.get_inputs()}
        for _ in range(2):
            session.run(None, {name: array for name, array in batch.items() if name in names})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    gemms = sum(spent[kind] for kind in FLOAT_GEMMS | INTEGER_GEMMS | {"Gemm"})
    return gemms / max(1, sum(spent.values()))


def gemm_ratio() -> float:
    """Return the time of a float32 GEMM divided by that of a uint8 x int8 GEMM; all their matrices are [SIZE, SIZE]."""
    generator = np.random.default_rng(0)
    left, right = generator.integers(0, 255, (2, SIZE, SIZE))
    floats = gemm_session("MatMul", right.astype(np.float32) / 255)
    integers = gemm_session("MatMulInteger", (right - 127).astype(np.int8))
    feeds = (left.astype(np.float32), left.astype(np.uint8))
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for index, (session, feed) in enumerate(zip((floats, integers), feeds, strict=True)):
            start = time.perf_counter()
            session.run(None, {"left": feed})
            times[index].append(time.perf_counter() - start)
    return min(times[0]) / min(times[1])  # the least disturbed round of each


def gemm_session(kind: str, right: Array):  # type: ignore[no-untyped-def]  # a session, whose package may be absent
    """Return a session of ONNX Runtime with one GEMM of the input `left` [n, n] and the constant `right` [n, n].

    `kind` is MatMul for a float32 input, or MatMulInteger for a uint8 input.
    """
    dtype = ir.DataType.FLOAT if kind == "MatMul" else ir.DataType.UINT8
    left = ir.Value(name="left", type=ir.TensorType(dtype), shape=ir.Shape(right.shape))
    node = ir.node(kind, [left, ir.Value(name="none")])
    made = node.outputs[0]
    made.name, made.shape = "product", ir.Shape(right.shape)
    made.type = ir.TensorType(ir.DataType.FLOAT if kind == "MatMul" else ir.DataType.INT32)
    model = ir.Model(ir.Graph([left], [made], nodes=[node], opset_imports={"": 18}, name="product"), ir_version=10)
    node.replace_input_with(1, add_initializer(model, "right", right))
    return open_session(serialised(model))
