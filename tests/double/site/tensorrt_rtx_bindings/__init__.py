"""A stand-in for TensorRT-RTX: the double of TensorRT 11, and what TensorRT-RTX has beside it.

Its plans run on the double of a GPU. The real compiler runs where no double is on the path.
"""

import os as _os

_os.environ.setdefault("TRT_DOUBLE_VERSION", "11.4.0.106")

from tensorrt import *  # noqa: F403  # after the version is chosen
from tensorrt import Builder as _Builder
from tensorrt import IBuilderConfig as _Config
from tensorrt import ICudaEngine as _Engine
from tensorrt import Runtime as _Runtime
from tensorrt import _plan, _setup, double_calls
from tensorrt._context import new_context as _new_context
from tensorrt._enums import _enumeration
from tensorrt._types import host_memory as _host_memory
from tensorrt._types import say as _say

__version__ = "1.7.1.116"

ComputeCapability = _enumeration("ComputeCapability", "NONE CURRENT SM75 SM80 SM86 SM89 SM120 SM121", __name__)
CudaGraphStrategy = _enumeration("CudaGraphStrategy", "DISABLED WHOLE_GRAPH_CAPTURE", __name__)
EngineValidity = _enumeration("EngineValidity", "VALID SUBOPTIMAL INVALID", __name__)
EngineInvalidityDiagnostics = _enumeration(
    "EngineInvalidityDiagnostics",
    "VERSION_MISMATCH=1 UNSUPPORTED_CC=2 OLD_CUDA_DRIVER=4 OLD_CUDA_RUNTIME=8 INSUFFICIENT_GPU_MEMORY=16 "
    "MALFORMED_ENGINE=32 CUDA_ERROR=64",
    __name__,
)


class IRuntimeCache:
    """Its bytes: `kernels`, and a plus for each time that it was read."""

    def __init__(self):
        self._data = b"kernels"

    def serialize(self):
        return _host_memory(self._data)

    def deserialize(self, blob):
        double_calls.append(("runtime_cache", bytes(blob)))
        self._data = bytes(blob) + b"+"
        return True


class IRuntimeConfig:
    def __init__(self):
        self.cuda_graph_strategy, self._strategy, self._cache = CudaGraphStrategy.DISABLED, None, None

    def set_execution_context_allocation_strategy(self, strategy):
        self._strategy = strategy

    def create_runtime_cache(self):
        return IRuntimeCache()

    def set_runtime_cache(self, cache):
        self._cache = cache
        return True


_of_tensorrt = _Engine.create_execution_context


def _create_execution_context(engine, config=None):
    if not isinstance(config, IRuntimeConfig):
        return _of_tensorrt(engine, config)
    double_calls.append(("create_context", config.cuda_graph_strategy.name, config._cache is not None))
    return _new_context(engine, config._strategy.name)


def _set_compute_capability(config, capability, index):
    config._target = capability.name
    return index < config.num_compute_capabilities


class Runtime(_Runtime):
    def get_engine_validity(self, data):
        double_calls.append(("validity",))
        if bytes(data)[: len(_plan.MAGIC)] != _plan.MAGIC:
            return EngineValidity.INVALID, EngineInvalidityDiagnostics.MALFORMED_ENGINE.value
        return EngineValidity.VALID, 0


_Config.num_compute_capabilities = 0
_Config.set_compute_capability = _set_compute_capability
_Engine.create_runtime_config = lambda engine: IRuntimeConfig()
_Engine.create_execution_context = _create_execution_context


def _line(name, gemm, integer):
    """Return a layer as the compiler's log has it. A GEMM has two operands; the double tells no other sizes."""
    about = "Dimensions: [8,8], Strides: [8,1], StrideOrder: [1,0]"
    operand = f" {{ Name: {name}.x, {about}, Datatype: {'Int8' if integer else 'Half'}, Format: linear }}" * gemm
    kind = "gemm" if gemm else "kgen"
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [{operand}], Constants: [{operand}], Outputs: [], TacticName: , "
        f"StreamId: 0, Metadata: [ONNX Layer: {name}]"
    )


class Builder(_Builder):
    def build_serialized_network(self, network, config, kernel_text=None):
        made = super().build_serialized_network(network, config, kernel_text)
        if made is not None:
            assert config._target == f"SM{_setup.SM.replace('.', '')}", "this double runs on its own GPU only"
            nodes = network._model.graph.node
            integer = any(node.op_type == "QuantizeLinear" for node in nodes)
            lines = [_line(node.name, node.op_type == "MatMul", integer) for node in nodes]
            _say(self._logger, "VERBOSE", "\n".join(["Layers:", *lines, "", "I/O Tensors:"]))
        return made
