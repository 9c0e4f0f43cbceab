"""The judge: a graph compiled by TensorRT-RTX for a GPU that this machine lacks, and the layers that it compiled."""

from toolchain.engine.builder import Builder, Built
from toolchain.engine.config import Options
from toolchain.engine.releases import import_release


def compile_static(graph: bytes, sm: int, shapes: dict[str, tuple[int, ...]], *, where: str = "graph") -> Built:
    """Compile an ONNX graph for inputs of fixed shapes, so that every dimension in the list of layers is a number.

    A plan of fixed shapes is for looking at; bundle/engine_step.py builds those that serve. For all inputs of an
    encoder's graph at 32 rows of 128 tokens:

        names = [value.name for value in graph.load(file).graph.inputs]
        built = compile_static(file.read_bytes(), 75, dict.fromkeys(names, (32, 128)), where=file.name)
        built.plan     # bytes
        built.messages.layer_lists[0]   # for kernels.parse_kernels

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
