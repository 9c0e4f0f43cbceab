"""Compiles a graph with TensorRT-RTX for a GPU that this machine lacks, to see which kernels the GPU would run."""

from collections.abc import Mapping

import onnx_ir as ir

from toolchain.engine.builder import Builder, Built
from toolchain.engine.config import Options
from toolchain.engine.kernels import Kernel, parse_kernels
from toolchain.engine.releases import import_release
from toolchain.graph import serialised


def compile_kernels(model: ir.Model, sm: int, *, batch: int, length: int, where: str = "graph") -> list[Kernel]:
    """Compile an encoder's graph for `batch` rows of `length` tokens, and return its kernels.

    For the other arguments and the errors, see `compile_static`.
    """
    shapes = {str(value.name): (batch, length) for value in model.graph.inputs}
    built = compile_static(serialised(model), sm, shapes, where=where)
    return parse_kernels(built.messages.layer_lists[0])


def compile_static(graph: bytes, sm: int, shapes: Mapping[str, tuple[int, ...]], *, where: str = "graph") -> Built:
    """Compile an ONNX graph for inputs of fixed shapes, so that every dimension in the list of layers is a number.

    Such a plan is only for analysis. bundle/engine_step.py builds the plans of bundles.

    Args:
        graph: the bytes of the ONNX file, with its weights.
        sm: the compute capability times ten, one of `targets.compute_capabilities`.
        shapes: input name -> its shape.
        where: the graph's name in messages.

    Raises:
        InputError: TensorRT-RTX cannot parse the graph, or does not compile it for this GPU.
        MachineError: TensorRT-RTX is not installed.
        KeyboardInterrupt: the user pressed Ctrl-C.
    """
    builder = Builder(import_release("trt-rtx"), where)
    network = builder.parse(graph, strongly_typed=True)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        tensor.shape = shapes[tensor.name]
    return builder.build(network, [], Options(target=sm), timing=None)
