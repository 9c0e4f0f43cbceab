"""The student of `toolchain heal`: the bundle's own INT8 graphs, run by PyTorch over one set of float32 weights.

Both Q/DQ graphs are made as a build makes them, so activations are rounded at exactly the sites and scales of
calibration.json. Weights are rounded anew in each pass, with scales for each channel from their current values. Each
batch is split: every other row runs through the graph for a CPU, and the other rows through the graph for TensorRT, so
that the weights suit both graphs. The weights are those of the smoothed graph: the FP32 graph after SmoothQuant.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.base.tensors import INT8_LEVELS, Array
from toolchain.bundle.quantized import quantized_graph, smoothed_graph
from toolchain.checkpoint.tokenize import Tokens
from toolchain.distill.loop import Activations, Inputs, Model
from toolchain.distill.torch_graph import Made, TorchGraph, torch_graph
from toolchain.errors import InputError
from toolchain.graph import constant
from toolchain.graph.embedding import quantize_embedding
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import round_scales
from toolchain.int8.quantize import CPU, TENSORRT, QdqScheme
from toolchain.runtimes.ort import open_session

if TYPE_CHECKING:
    import torch

# Operator -> indices of the inputs that are trained: weights and biases. Embedding tables are not trained, because the
# train rows use only a small part of a table, and the tables of the CPU's graph are in INT8.
TRAINED = {"MatMul": (1,), "Gemm": (1, 2), "LayerNormalization": (1, 2), "Add": (0, 1)}

# Replaces the largest value of a tensor that is zero everywhere, so that nothing is divided by zero.
SMALLEST = 1e-12


@dataclass(frozen=True)
class Student:
    """The student of `heal`: its trainable float32 weights, by name in the smoothed graph, and the INT8 graphs."""

    module: "torch.nn.ParameterList"
    names: tuple[str, ...]
    # File name in the bundle -> the graph in that file.
    graphs: dict[str, TorchGraph]

    @property
    def model(self) -> Model:
        """The student in the form that the training loop takes."""
        return Model(self.module, self._run)

    def weights(self) -> dict[str, Array]:
        """Return a copy of the current weights, by name."""
        pairs = zip(self.names, self.module.parameters(), strict=True)
        return {name: np.array(one.detach().cpu().numpy()) for name, one in pairs}

    def put(self, weights: Mapping[str, Array]) -> None:
        """Replace the values of all weights; `weights` has the new ones by name."""
        import torch

        with torch.no_grad():
            for name, one in zip(self.names, self.module.parameters(), strict=True):
                one.copy_(torch.from_numpy(weights[name]))

    def _run(self, inputs: Inputs) -> Activations:
        """Run each graph on its rows of the batch; return the logits and hidden states of all rows, in order."""
        import torch

        graphs, rows = list(self.graphs.values()), torch.arange(len(inputs["attention_mask"]))
        shares = [rows[at :: len(graphs)] for at in range(len(graphs))]
        found = [
            activations(one, {name: given[share] for name, given in inputs.items()})
            for one, share in zip(graphs, shares, strict=True)
            if len(share)
        ]
        back = torch.cat(shares).argsort()
        hidden = zip(*(one.hidden for one in found), strict=True)
        return Activations(
            torch.cat([one.logits for one in found])[back], tuple(torch.cat(parts)[back] for parts in hidden)
        )


def activations(graph: TorchGraph, inputs: Inputs) -> Activations:
    """Return the logits of a graph, and as hidden states the outputs of the LayerNorms that run on all tokens."""
    values, shape = graph.run(inputs), inputs["attention_mask"].shape
    norms = [node.outputs[0] for node in graph.model.graph if node.op_type == "LayerNormalization"]
    hidden = tuple(values[one] for one in norms if values[one].ndim == 3 and values[one].shape[:2] == shape)
    return Activations(values[graph.model.graph.outputs[0]], hidden)


def teacher_graph(folder: Path) -> TorchGraph:
    """Return the smoothed FP32 graph of a bundle, which has the same GEMMs and hidden states as the student.

    Raises:
        InputError: the graph has an operator that torch_graph.py does not support.
    """
    model, _, _ = smoothed_graph(folder)
    first_token(model)
    return torch_graph(model, {})


def teacher_of(folder: Path) -> Model:
    """Return the FP32 graph of a bundle in the form that the training loop takes. For errors, see `teacher_graph`."""
    import torch

    whole = teacher_graph(folder)
    return Model(torch.nn.Module(), lambda inputs: activations(whole, inputs))


def student_of(
    folder: Path, *, keep: str | None, residual: str | None, healed: Mapping[str, Array] | None = None
) -> Student:
    """Return the INT8 graphs of a bundle as a student that starts from the checkpoint's weights, or from `healed`.

    `keep` and `residual` are the recipe's options of these names; None means the choice of the calibration.

    Raises:
        InputError: see `teacher_graph`.
    """
    import torch

    smoothed, _, _ = smoothed_graph(folder, healed)
    arrays = _trained(smoothed)
    module = torch.nn.ParameterList([torch.nn.Parameter(torch.from_numpy(np.array(one))) for one in arrays.values()])
    parameters = dict(zip(arrays, module, strict=True))
    matmuls = {str(node.name): str(node.inputs[1].name) for node in graph.nodes(smoothed, "MatMul") if node.inputs[1]}
    graphs = {}
    for file, scheme in {"model.int8.cpu.onnx": CPU, "model.int8.onnx": TENSORRT}.items():
        model, _ = quantized_graph(folder, scheme, keep=keep, residual=residual, healed=healed)
        _finish(model, scheme)
        graphs[file] = torch_graph(model, _made(model, parameters, matmuls))
    return Student(module, tuple(arrays), graphs)


class Difference(NamedTuple):
    """How much PyTorch differs from ONNX Runtime in one graph, if each layer starts from ONNX Runtime's activations.

    `relative` is the largest difference of an activation before rounding, or of a logit, as a fraction of the largest
    magnitude in its tensor. `rounded` is the largest fraction of a tensor's values that is rounded to another level.
    """

    relative: float
    rounded: float


def compare_sites(made: TorchGraph, tokens: Tokens) -> Difference:
    """Run a graph row by row in PyTorch and ONNX Runtime; return their largest differences at any Q/DQ site.

    Comparing the logits alone is not enough: an activation halfway between two levels may be rounded to either, and
    later layers amplify the difference. So PyTorch computes the nodes after each site from the values that ONNX Runtime
    rounded.
    """
    import torch

    pairs = list(graph.nodes(made.model, "QuantizeLinear"))
    ends = {node: next(iter(node.outputs[0].uses())).node.outputs[0] for node in pairs}
    smooth = [*(node.inputs[0] for node in pairs if node.inputs[0] is not None), made.model.graph.outputs[0]]
    names = list(dict.fromkeys(str(value.name) for value in (*smooth, *ends.values())))
    session, relative, rounded = open_session(graph.with_outputs(made.model, names), literal=True), 0.0, 0.0
    for row in range(len(tokens)):
        batch = tokens.batch(np.array([row]))
        wanted = {name: torch.from_numpy(one) for name, one in zip(names, session.run(names, batch), strict=True)}
        inputs = {name: torch.from_numpy(one).long() for name, one in batch.items()}
        with torch.no_grad():
            found = made.run(inputs, {end: wanted[str(end.name)] for end in ends.values()})
        for value in smooth:
            other = wanted[str(value.name)]
            relative = max(relative, float((found[value] - other).abs().max() / other.abs().max().clamp_min(SMALLEST)))
        for node, end in ends.items():
            found_end = found[node.outputs[0]]
            moved = (found_end - wanted[str(end.name)]).abs() > _scale_of(node, found, found_end.ndim) / 2
            rounded = max(rounded, float(moved.float().mean()))
    return Difference(relative, rounded)


def _scale_of(node: ir.Node, found: "Mapping[ir.Value, torch.Tensor]", rank: int) -> "torch.Tensor":
    """Return the scale of a QuantizeLinear, in a shape that broadcasts with its input of `rank` dimensions."""
    assert node.inputs[1] is not None
    scale, axis = found[node.inputs[1]], node.attributes.get_int("axis", 1) % rank
    return scale.reshape([-1 if at == axis else 1 for at in range(rank)]) if scale.numel() > 1 else scale


def _finish(model: ir.Model, scheme: QdqScheme) -> None:
    """Apply to a new Q/DQ graph, in place, the later passes of a build that change what the graph computes."""
    if scheme is CPU:
        first_token(model)
        quantize_embedding(model)
    else:
        round_scales(model)


def _trained(model: ir.Model) -> dict[str, Array]:
    """Return the weights of a float32 graph that are trained (see TRAINED), by name."""
    found: dict[str, Array] = {}
    for node in model.graph:
        for position in TRAINED.get(node.op_type, ()):
            value = node.inputs[position] if position < len(node.inputs) else None
            array = constant(value) if value is not None and value.is_initializer() else None
            bias = node.op_type != "Add" or (array is not None and array.ndim == 1 and array.size > 1)
            if value is not None and array is not None and array.dtype == np.float32 and bias:
                found[str(value.name)] = array
    return found


def _made(
    model: ir.Model, parameters: "Mapping[str, torch.nn.Parameter]", matmuls: Mapping[str, str]
) -> dict[ir.Value, Made]:
    """Return, for each trained weight of a Q/DQ graph, the function that computes its value from the parameters.

    The value is the parameter itself, or for an INT8 weight the parameter after rounding. `matmuls` maps the name of a
    MatMul to the name of its weight.

    Raises:
        InputError: the weight of a quantized MatMul is not among the parameters.
    """
    made: dict[ir.Value, Made] = {}
    for name, parameter in parameters.items():
        if (value := model.graph.initializers.get(name)) is not None:
            made[value] = lambda parameter=parameter: parameter  # type: ignore[misc]
    for node in graph.nodes(model, "MatMul"):
        value = node.inputs[1]
        source = value.producer() if value is not None else None
        if value is None or source is None or source.op_type != "DequantizeLinear":
            continue
        if constant(source.inputs[0]) is not None:
            halves = constant(source.inputs[1])
            trained = parameters.get(matmuls.get(str(node.name), ""))
            if trained is None:
                raise InputError(f"the weight of {node.name} is not in the graph without Q/DQ. Use `toolchain tune`.")
            rounded = halves is not None and bool((halves == halves.astype(np.float16)).all())
            made[value] = lambda parameter=trained, rounded=rounded: fake_weight(parameter, halves=rounded)  # type: ignore[misc]
    return made


def fake_weight(weight: Any, *, halves: bool) -> Any:
    """Return a weight [in, out] rounded as `quantize_weight` rounds it; gradients pass as if it were not rounded.

    With `halves`, the scales that dequantize it are rounded to float16.
    """
    import torch

    fixed = weight.detach()
    scale = fixed.abs().amax(dim=0) / INT8_LEVELS
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    least = torch.finfo(torch.float16).smallest_normal * 2.0**-10  # float16's smallest number above zero
    stored = scale.half().float().clamp_min(least) if halves else scale
    # Not PyTorch's own fake quantization: it multiplies by 1 / scale, which rounds some weights to another level.
    rounded = (fixed / scale).round().clamp(-INT8_LEVELS, INT8_LEVELS) * stored
    return weight + (rounded - fixed)
