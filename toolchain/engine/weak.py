"""Precisions of single layers, and execution contexts, for TensorRT 8, whose networks are not strongly typed.

Its graphs are float32 with Q/DQ nodes, and builder flags allow TensorRT to compute in float16 and INT8 where that is
faster. Layers whose values do not fit float16 are kept in float32; graph/trt8.py chooses them.
"""

from collections.abc import Mapping
from typing import Any

# Major versions of TensorRT whose API this module uses. TensorRT 11 cannot set the precision of a layer.
MAJORS = (8, 10)


def keep_in_float32(trt: Any, network: Any, nodes: Mapping[str, bool]) -> int:
    """Set the layers of some ONNX nodes to float32, and return how many layers were set.

    `nodes` maps a node's name to whether its layer must also compute in float32. If not, only its output is float32, as
    for a GEMM that reads INT8. The builder obeys these settings only with the flag OBEY_PRECISION_CONSTRAINTS.
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
    """Creates execution contexts that each have their own workspace. See Contexts in engine/contexts.py."""

    captures, workspace_bytes = False, 0

    def __init__(self, engine: Any) -> None:
        """Keep the engine."""
        self._engine = engine

    def create(self, workspace: int) -> Any:
        """Return a new context; None if the GPU has too little memory. `workspace` is not used."""
        return self._engine.create_execution_context()

    def close(self) -> None:
        """Release the engine."""
        self._engine = None
