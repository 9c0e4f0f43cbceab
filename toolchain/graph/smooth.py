"""SmoothQuant: move outlier channels from activations into weights (Xiao et al., 2023, arXiv 2211.10438).

Linear layers compute `x @ W`. With a factor s for each channel, `x / s` and `s * W` have the same product, but `x / s`
has a smaller quantization error if the whole tensor has one scale. Dividing x takes little time in two places:

- `x` comes from a LayerNorm: its scale and shift are divided. In a post-LayerNorm model the residual addition reads `x`
  too, so one Mul by s restores it there.
- `x` comes from the activation function of the feed-forward layers: a Mul by 1 / s follows the function. These tensors
  have the largest outliers of the model, and the weights can take all of them, so s = amax(x).

Factors are 2^(k/8) with integer k, so that calibration.json holds them exactly.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain.base.tensors import Array
from toolchain.errors import InputError
from toolchain.graph import add_initializer, constant
from toolchain.graph.gemms import linear_layers

# Name of a fold -> 8 * log2 of the factor of each channel, [hidden].
Exponents = dict[str, list[int]]

# Number of factors per octave (doubling). With powers of two alone (1 per octave), smoothing would cause no rounding,
# but the INT8 error is a sixth larger.
PER_OCTAVE = 8

# Factors stay within 2^-8..2^8, so that float16 neither overflows nor loses bits.
MAX_EXPONENT = 8 * PER_OCTAVE

# Operators that may compute the input of a linear layer but are not activation functions. Any other operator there is
# taken for the last operator of an activation function.
NO_ACTIVATIONS = ("LayerNormalization", "Reshape", "Transpose", "MatMul", "Add", "Gather")


@dataclass(frozen=True)
class Fold:
    """A tensor that can be smoothed, with the linear layers that read it.

    `name` is the name of the LayerNorm that computes the tensor, or else of the first linear layer that reads it.
    """

    name: str
    value: ir.Value
    linear: list[ir.Node]

    @property
    def norm(self) -> ir.Node | None:
        """The LayerNorm that computes the tensor, or None if an activation function does."""
        node = self.value.producer()
        return node if node is not None and node.op_type == "LayerNormalization" else None

    @property
    def weights(self) -> list[Array]:
        """The weights of the linear layers that read the tensor, each float32 [hidden, out]."""
        return [array for node in self.linear if (array := constant(node.inputs[1])) is not None]


def folds(model: ir.Model) -> list[Fold]:
    """Return the tensors that can be smoothed, in graph order: outputs of LayerNorms and activation functions.

    A tensor cannot be smoothed if a linear layer that reads it shares its weights with another layer, as in ALBERT.
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
    """Return the factors of each fold as exponents: 8 * log2(s) for s = amax(x)^alpha / amax(W)^(1 - alpha), rounded.

    Args:
        model: the graph.
        amax: fold name -> the largest |x| of each channel, float32 [hidden].
        alpha: the fraction of the outliers that moves into the weights, 0 to 1; after an activation function always 1.

    The factors of a fold have a geometric mean of 1, because a common factor would not change relative errors.
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
        chosen[fold.name] = np.rint(np.clip(PER_OCTAVE * power, -MAX_EXPONENT, MAX_EXPONENT)).astype(int).tolist()
    return chosen


def smooth(model: ir.Model, chosen: Exponents) -> int:
    """Divide tensors and multiply weights by the same factors, in place; return the number of Mul nodes added.

    `chosen` is the result of `exponents`.

    Raises:
        InputError: the graph lacks a fold in `chosen`, or has one with another number of channels.
    """
    known = {fold.name: fold for fold in folds(model)}
    added = 0
    for name, powers in chosen.items():
        fold = known.get(name)
        if fold is None or len(powers) != len(fold.weights[0]):
            raise InputError(
                f"calibration: it has smoothing factors for {len(powers)} channels of {name}, which this graph lacks. "
                "Calibrate this graph again."
            )
        factor = np.exp2(np.array(powers, np.float32) / PER_OCTAVE)
        for node in fold.linear:
            _replace(model, node, 1, fold.weights[fold.linear.index(node)] * factor[:, None])
        added += _divide_norm(model, fold, factor) if fold.norm else _divide(model, fold, factor)
    return added


def _divide_norm(model: ir.Model, fold: Fold, factor: NDArray[np.float32]) -> int:
    """Divide the scale and shift of the fold's LayerNorm by `factor`; return the number of Mul nodes added, 0 or 1.

    The Mul restores the tensor for nodes other than the fold's linear layers.
    """
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
    """Divide a fold's tensor by `factor` with a Mul before the linear layers; return the number of Mul nodes, 1."""
    divided = _times(model, fold.value, 1 / factor, f"{fold.name}.smooth")
    for node in fold.linear:
        node.replace_input_with(0, divided)
    # The tensor that is quantized, and so its calibration range, has the same name with and without smoothing.
    fold.value.name, divided.name = f"{fold.name}.activation", fold.value.name
    return 1


def _replace(model: ir.Model, node: ir.Node, position: int, array: Array) -> None:
    """Replace the constant input of `node` at `position`; other nodes that read it keep the old constant."""
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
