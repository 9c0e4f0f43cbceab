"""Rounds weights to INT8 levels so that their errors cancel in the outputs of each GEMM, not each to its nearest level.

The method is GPTQ (Frantar et al. 2022, arXiv 2210.17323): the rows of a weight [in, out] are rounded one after the
other, and after each the rows that are left are adjusted to make up for the change of the outputs. The inputs of a GEMM
come from the INT8 graphs, after the GEMMs before it were rounded. Then the bias is corrected by the mean difference of
the outputs from FP32's (Nagel et al. 2019, arXiv 1906.04721). Where calibrated ranges clip, a few tokens dominate this
mean, so there is a second method that limits their influence (`BIASES`). Only the sample of tokens is random, and there
is no learning rate to choose.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import onnx_ir as ir

from toolchain import graph
from toolchain.base.processors import cpu_threads
from toolchain.base.progress import track
from toolchain.base.tensors import INT8_LEVELS
from toolchain.checkpoint.tokenize import Tokens, batches_of
from toolchain.distill.fake_quantize import Student
from toolchain.distill.flow import Flow
from toolchain.distill.torch_graph import TorchGraph

if TYPE_CHECKING:
    import torch

    from toolchain.distill.loop import Inputs

# Rows per batch, and tokens in total. These tokens fit into memory, and are enough to estimate the products of each two
# of a GEMM's 1,536 inputs.
ROWS, TOKENS = 32, 32_768

# Inputs of a GEMM whose weights are rounded before the weights of all later inputs are corrected for the errors. A
# correction after each input would be slower.
BLOCK = 128

# Tokens of each graph on which the bias is corrected. The median over more tokens would take longer than the rounding.
SAMPLED = 8192

# Differences further than FARTHEST standard deviations from their median are clipped to that distance (Huber 1964, doi
# 10.1214/aoms/1177703732). In a normal distribution, one standard deviation is DEVIATION times the median distance from
# the median.
FARTHEST, DEVIATION = 2.0, 1.4826


def mean(errors: "torch.Tensor") -> "torch.Tensor":
    """Return the mean over all tokens of the difference of each GEMM output from FP32, [tokens, out] to [out]."""
    return errors.mean(dim=0)


def robust_mean(errors: "torch.Tensor") -> "torch.Tensor":
    """Return the same mean as `mean`, but with the differences that are far from their median clipped."""
    middle = errors.median(dim=0).values
    around = errors - middle
    most = FARTHEST * DEVIATION * around.abs().median(dim=0).values
    return middle + around.clamp(-most, most).mean(dim=0)


# Name in a record -> the function that averages the differences of a GEMM's outputs from FP32's; the average is added
# to the bias.
BIASES: dict[str, Callable[["torch.Tensor"], "torch.Tensor"]] = {"mean": mean, "robust": robust_mean}


class Sums(NamedTuple):
    """Statistics of a GEMM's inputs x over the tokens of all INT8 graphs, float64.

    `products` is the sum of the outer products of x with itself, [in, in], and `mean` is the mean of x, [in].
    """

    tokens: int
    products: "torch.Tensor"
    mean: "torch.Tensor"


class Sample(NamedTuple):
    """The inputs of a GEMM for a sample of tokens, in the FP32 graph and in each INT8 graph; each is [tokens, in]."""

    exact: "torch.Tensor"
    seen: "Sequence[torch.Tensor]"


def reconstruct(student: Student, teacher: TorchGraph, tokens: Tokens, bias: str) -> int:
    """Round the weights of the student's INT8 GEMMs in place, in the order of the graph; return how many were rounded.

    `teacher` is the smoothed FP32 graph, whose GEMMs have the same names as the student's. `bias` is a key of BIASES.
    """
    import torch

    torch.set_num_threads(cpu_threads())
    batches = [
        {name: torch.from_numpy(one).long() for name, one in tokens.batch(rows).items()}
        for rows in batches_of(tokens, ROWS)
    ]
    exact, *flows = [Flow(one, batches) for one in (teacher, *student.graphs.values())]
    places = [{node.name: node for node in graph.nodes(one.model, "MatMul")} for one in student.graphs.values()]
    parameters = dict(zip(student.names, student.module, strict=True))
    rounded = {name for place in places for name, node in place.items() if _is_rounded(node)}
    todo: dict[str, ir.Node] = {}
    for node in graph.nodes(teacher.model, "MatMul"):
        if node.name in rounded:
            todo.setdefault(_weight_name(node), node)  # if layers share a weight, it is rounded for the first of them
    known: tuple[Sums, Sample] | None = None
    read: ir.Value | None = None
    for name, node in track(todo.items(), total=len(todo), text="rounding"):
        if known is None or node.inputs[0] is not read:  # the GEMMs of queries, keys and values have the same input
            seen = [flow.advance(place[node.name]) for flow, place in zip(flows, places, strict=True)]
            known = _sums(seen, batches), _sample(exact.advance(node), seen, batches)
            read = node.inputs[0]
        _choose(parameters[name], parameters.get(_bias(node)), *known, BIASES[bias])
    return len(todo)


def _is_rounded(node: ir.Node) -> bool:
    """Return whether a MatMul of a Q/DQ graph reads an INT8 weight."""
    maker = node.inputs[1].producer() if node.inputs[1] is not None else None
    return maker is not None and maker.op_type == "DequantizeLinear" and graph.constant(maker.inputs[0]) is not None


def _weight_name(node: ir.Node) -> str:
    assert node.inputs[1] is not None
    return str(node.inputs[1].name)


def _bias(node: ir.Node) -> str:
    """Return the name of the bias that is added to the output of this MatMul alone; an empty string if it has none."""
    for use in node.outputs[0].uses():
        for value in use.node.inputs if use.node.op_type == "Add" else ():
            if value is not None and value.is_initializer() and len(value.uses()) == 1:
                return str(value.name)
    return ""


def _sums(seen: "Sequence[Sequence[torch.Tensor]]", batches: "Sequence[Inputs]") -> Sums:
    """Return the statistics of a GEMM's inputs over all INT8 graphs together, without padded positions."""
    import torch

    width = seen[0][0].shape[-1]
    products, total = (torch.zeros(*shape, dtype=torch.float64) for shape in ((width, width), (width,)))
    tokens = 0
    for at, batch in enumerate(batches):
        mask = batch["attention_mask"].bool()
        for one in seen:
            rows = _real(one[at], mask)
            products += (rows.T @ rows).double()
            total += rows.double().sum(dim=0)
            tokens += len(rows)
    return Sums(tokens, products, total / tokens)


def _real(values: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """Return the inputs without padded positions, [tokens, in].

    Inputs in the last layer that have only one token per row are returned whole.
    """
    return values[mask] if values.shape[:2] == mask.shape else values.reshape(-1, values.shape[-1])


def _sample(
    exact: "Sequence[torch.Tensor]", seen: "Sequence[Sequence[torch.Tensor]]", batches: "Sequence[Inputs]"
) -> Sample:
    """Return a GEMM's inputs for at most SAMPLED random tokens of all batches, the same tokens in each graph."""
    import torch

    found = [
        torch.cat([_real(one, batch["attention_mask"].bool()) for one, batch in zip(values, batches, strict=True)])
        for values in (exact, *seen)
    ]
    some = torch.randperm(len(found[0]), generator=torch.Generator().manual_seed(0))[:SAMPLED]
    first, *others = (one[some] for one in found)
    return Sample(first, others)


def _choose(
    weight: "torch.nn.Parameter",
    bias: "torch.nn.Parameter | None",
    sums: Sums,
    sample: Sample,
    middle: Callable[["torch.Tensor"], "torch.Tensor"],
) -> None:
    """Round a weight [in, out] and correct its bias [out], in place; `middle`, from BIASES, averages the errors."""
    import torch

    old, square = weight.detach().double(), sums.products
    if bias is not None:  # the bias corrects the mean error, so the weights need not
        square = square - sums.tokens * torch.outer(sums.mean, sums.mean)
    # The damping is larger with fewer tokens, because their products say little about new tokens. The last layer sees
    # only the first token of each row.
    damping = len(square) / sums.tokens * float(square.diagonal().mean())
    made = round_in_turn(old, square + (damping or 1.0) * torch.eye(len(square), dtype=square.dtype))
    with torch.no_grad():
        weight.copy_(made)
        if bias is not None:
            wanted = sample.exact @ old.float()
            bias.add_(middle(torch.cat([wanted - one @ weight for one in sample.seen])))


def round_in_turn(weight: "torch.Tensor", square: "torch.Tensor") -> "torch.Tensor":
    """Return a weight [in, out], dequantized after rounding to INT8 levels so that the errors of its outputs cancel.

    `square` is the sum of outer products of the inputs, [in, in], and must be invertible. The largest weight of each
    output keeps the level 127 or -127, so the quantizer later finds the same scale and the same levels.
    """
    import torch

    left = weight.clone()
    scale = left.abs().amax(dim=0) / INT8_LEVELS
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    top = left.abs().argmax(dim=0)
    most = INT8_LEVELS * left.gather(0, top[None])[0].sign()
    share = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(square)), upper=True)
    made = torch.empty_like(left)
    for begin in range(0, len(left), BLOCK):
        end = min(begin + BLOCK, len(left))
        errors = torch.empty_like(left[begin:end])
        for at in range(begin, end):
            levels = (left[at] / scale).round().clamp(-INT8_LEVELS, INT8_LEVELS)
            made[at] = torch.where(top == at, most, levels) * scale
            errors[at - begin] = (left[at] - made[at]) / share[at, at]
            left[at + 1 : end] -= torch.outer(share[at, at + 1 : end], errors[at - begin])
        left[end:] -= share[begin:end, end:].T @ errors
    return made
