"""SmoothQuant: move outlier channels from activations into weights (Xiao et al., 2023, arXiv 2211.10438).

Linear layers compute `x @ W`. With a factor s for each channel, `x / s` and `s * W` give the same product, and one
scale for the whole tensor loses less of `x / s`. Two places where the division costs little:

- `x` comes from a LayerNorm: it goes into the norm's scale and shift. In a post-LayerNorm model the residual reads
  `x` too, and gets it back by one Mul.
- `x` comes from the feed-forward's activation function: one Mul beside the others of that function. Its outliers
  are the worst of the model and its weights can take them whole, so there s = amax(x).

Factors are whole eighths of an octave, which whole numbers write down: 2^(k/8).
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain.errors import InputError
from toolchain.graph import add_initializer, constant
from toolchain.graph.gemms import linear_layers
from toolchain.tensors import Array

Exponents = dict[str, list[int]]
"""A fold's name -> log2 of each channel's factor in eighths, [hidden]."""

STEPS = 8
"""Factors an octave. Powers of two alone would round nothing anew, but cost a sixth more error in INT8."""

MAX_EXPONENT = 8 * STEPS
"""Factors stay within 2^-8..2^8, so that float16 neither overflows nor loses bits."""

NO_ACTIVATIONS = ("LayerNormalization", "Reshape", "Transpose", "MatMul", "Add", "Gather")
"""Whatever else makes a linear layer's input is the end of an activation function."""


@dataclass(frozen=True)
class Fold:
    """A tensor that can be smoothed, and the linear layers that read it.

    `name` is the LayerNorm's that makes it, or else the linear layer's.
    """

    name: str
    value: ir.Value
    linear: list[ir.Node]

    @property
    def norm(self) -> ir.Node | None:
        """The LayerNorm that makes it, if one does."""
        node = self.value.producer()
        return node if node is not None and node.op_type == "LayerNormalization" else None

    @property
    def weights(self) -> list[Array]:
        """The weights of its linear layers, each float32 [hidden, out]."""
        return [array for node in self.linear if (array := constant(node.inputs[1])) is not None]


def folds(model: ir.Model) -> list[Fold]:
    """Return the tensors that can be smoothed, in graph order.

    Left out is what linear layers read that share their weights with others, as in ALBERT.
    """
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in linear_layers(model):
        if node.inputs[0] is not None:
            readers.setdefault(node.inputs[0], []).append(node)
    found = []
    for value, linear in readers.items():
        source = value.producer()
        if source is None:
            continue
        norm = source.op_type == "LayerNormalization"
        sole = all(len(weight.uses()) == 1 for node in linear if (weight := node.inputs[1]) is not None)
        if sole and (norm or source.op_type not in NO_ACTIVATIONS):
            found.append(Fold(str(source.name if norm else linear[0].name), value, linear))
    return found


def exponents(model: ir.Model, amax: dict[str, NDArray[np.float32]], alpha: float) -> Exponents:
    """Return log2 of s = amax(x)^alpha / amax(W)^(1 - alpha) in eighths for each fold.

    Args:
        model: the graph.
        amax: the largest |x| of each channel, float32 [hidden], by the fold's name.
        alpha: how much of the outliers moves into the weights, 0 to 1; after an activation function always all.

    The geometric mean of s is 1: a common factor would change no relative error.
    """
    chosen: Exponents = {}
    for fold in folds(model):
        share = alpha if fold.norm else 1.0
        w = np.max([np.abs(weight).max(axis=1) for weight in fold.weights], axis=0)
        x = amax[fold.name]
        alive = (w > 0) & (x > 0)
        power = np.zeros(len(w))
        power[alive] = share * np.log2(x[alive]) - (1 - share) * np.log2(w[alive])
        power[alive] -= power[alive].mean() if alive.any() else 0
        chosen[fold.name] = np.rint(np.clip(STEPS * power, -MAX_EXPONENT, MAX_EXPONENT)).astype(int).tolist()
    return chosen


def smooth(model: ir.Model, chosen: Exponents) -> int:
    """Fold the factors into the graph; return how many Mul nodes that took.

    Raises:
        InputError: the graph has no such place, or it has another number of channels.
    """
    known = {fold.name: fold for fold in folds(model)}
    added = 0
    for name, powers in chosen.items():
        fold = known.get(name)
        if fold is None or len(powers) != len(fold.weights[0]):
            raise InputError(f"calibration: smooths {name}, which this graph has not like that. Calibrate it again.")
        factor = np.exp2(np.array(powers, np.float32) / STEPS)
        for node in fold.linear:
            _replace(model, node, 1, fold.weights[fold.linear.index(node)] * factor[:, None])
        added += _divide_norm(model, fold, factor) if fold.norm else _divide(model, fold, factor)
    return added


def _divide_norm(model: ir.Model, fold: Fold, factor: NDArray[np.float32]) -> int:
    """Divide in the LayerNorm's scale and shift; readers that are no linear layers read the output times `factor`."""
    assert fold.norm
    for position, value in enumerate(fold.norm.inputs):
        array = constant(value)
        if array is not None:
            _replace(model, fold.norm, position, array / factor)
    others = [use for use in fold.value.uses() if use.node not in fold.linear]
    if not others:
        return 0
    restored = _times(model, fold.value, factor, f"{fold.name}.residual")
    for use in others:
        use.node.replace_input_with(use.idx, restored)
    return 1


def _divide(model: ir.Model, fold: Fold, factor: NDArray[np.float32]) -> int:
    """Divide by a Mul in front of the linear layers."""
    divided = _times(model, fold.value, 1 / factor, f"{fold.name}.smooth")
    for node in fold.linear:
        node.replace_input_with(0, divided)
    # What is quantised keeps its name, whether it was smoothed or not.
    fold.value.name, divided.name = f"{fold.name}.activation", fold.value.name
    return 1


def _replace(model: ir.Model, node: ir.Node, position: int, array: Array) -> None:
    """Let `node` read another constant; whoever else reads the old one keeps it."""
    name = f"{node.name}.smoothed_{('', 'weight', 'bias')[position]}"
    node.replace_input_with(position, add_initializer(model, name, array.astype(np.float32)))


def _times(model: ir.Model, value: ir.Value, factor: Array, name: str) -> ir.Value:
    product = ir.node("Mul", [value, add_initializer(model, f"{name}.factor", factor)], name=name)
    made = product.outputs[0]
    made.name, made.shape, made.type = f"{name}.output", value.shape, ir.TensorType(ir.DataType.FLOAT)
    after = value.producer()
    assert after
    model.graph.insert_after(after, product)
    return made
