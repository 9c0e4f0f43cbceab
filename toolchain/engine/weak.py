"""What only TensorRT 8 needs: precisions for its networks, which are not strongly typed, and plain contexts.

A graph is float32 with Q/DQ nodes, and flags allow TensorRT to compute in float16 and INT8 where that is fast. What
does not fit float16 is kept in float32 (graph/trt8.py).
"""

from collections.abc import Mapping
from typing import Any

# Major versions of TensorRT whose API this module uses; 11 has no precisions of layers.
MAJORS = (8, 10)


def keep_in_float32(trt: Any, network: Any, nodes: Mapping[str, bool]) -> int:
    """Keep the layers of some ONNX nodes in float32; return the number of layers that were kept.

    `nodes`: name -> whether the layer also computes in float32; else only its output is, as of a GEMM that reads INT8.
    The builder obeys it with the flag OBEY_PRECISION_CONSTRAINTS.
    """
    kept = 0
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        if layer.name in nodes:
            if nodes[layer.name]:
                layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)
            kept += 1
    return kept


class PlainContexts:
    """Execution contexts that each have their own workspace; see engine/contexts.py."""

    captures, workspace_bytes = False, 0

    def __init__(self, engine: Any) -> None:
        """Keep the engine."""
        self._engine = engine

    def create(self, workspace: int) -> Any:
        """Return a new context; None if the GPU has too little memory."""
        return self._engine.create_execution_context()

    def close(self) -> None:
        """Let the engine go."""
        self._engine = None
