"""What ONNX Runtime really runs: the matrix products of its optimised graph, in integers or not."""

import tempfile
from pathlib import Path

from toolchain import graph
from toolchain.runtimes.ort import open_session

INTEGER_PRODUCTS = {"QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
                    "QGemm", "QAttention"}  # fmt: skip
FLOAT_PRODUCTS = {"MatMul", "FusedMatMul", "Attention", "MultiHeadAttention"}


def integer_coverage(model: Path) -> dict[str, int]:
    """Return how many products the optimised graph holds: `integer` and `float`.

    The classification head's Gemm, one vector a row, is not counted.
    """
    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        optimised = Path(folder) / "optimised.onnx"
        open_session(model, optimised=optimised)
        types = [node.op_type for node in graph.load(optimised).graph]
    return {
        "integer": sum(kind in INTEGER_PRODUCTS for kind in types),
        "float": sum(kind in FLOAT_PRODUCTS for kind in types),
    }
