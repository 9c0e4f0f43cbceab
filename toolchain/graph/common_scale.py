"""A pass for TensorRT-RTX: all INT8 weights get one common scale, and a Mul after each GEMM corrects each channel.

If the weights of a GEMM have a scale for each channel, TensorRT-RTX stores the GEMM's raw integer sums as float16 and
applies the scales in the next kernel. The sums of real models are several times as large as 65,504, the largest float16
number, so they overflow. If the weights have a single scale, the GEMM applies it before it stores the result, which
then has the range of the activation. A Mul multiplies each channel by its own scale divided by the common one. It takes
no extra time, because the next kernel has that multiplication anyway. All weights of the model share the scale, because
otherwise TensorRT-RTX does not join the GEMMs of query, key and value.
"""

import numpy as np
import onnx_ir as ir

from toolchain.graph import add_initializer, constant, nodes

NAME = "weights.int8"

# Suffix of the name of a GEMM's output before the Mul that corrects its channels.
UNSCALED = ".unscaled"


def common_scale(model: ir.Model) -> int:
    """Give all quantized weights the same scale, in place; return the number of GEMMs that got a Mul.

    Call it before fp16.to_half. The scale is the power of two nearest to the median of all scales, so that dividing by
    it is exact.
    """
    weights = [node for node in nodes(model, "DequantizeLinear") if _is_weight(node)]
    if not weights:
        return 0
    scales = {node: np.asarray(constant(node.inputs[1])) for node in weights}
    common = np.exp2(np.rint(np.median(np.log2(np.concatenate(list(scales.values())))))).astype(np.float32)
    scale = add_initializer(model, f"{NAME}.scale", np.array(common))
    zero = add_initializer(model, f"{NAME}.zero_point", np.array(0, np.int8))
    count = 0
    for node in weights:
        node.replace_input_with(1, scale)
        node.replace_input_with(2, zero)
        del node.attributes["axis"]
        for use in list(node.outputs[0].uses()):
            _multiply(model, use.node, scales[node] / common)
            count += 1
    return count


def _is_weight(node: ir.Node) -> bool:
    scale = constant(node.inputs[1])
    return constant(node.inputs[0]) is not None and scale is not None and scale.ndim == 1


def _multiply(model: ir.Model, gemm: ir.Node, factor: np.ndarray) -> None:
    """Multiply the output of a GEMM, [..., out], by `factor`, [out], both float32.

    The result of the multiplication gets the name of the GEMM's output.
    """
    raw = gemm.outputs[0]
    name = str(raw.name)
    product = ir.node("Mul", [raw, add_initializer(model, f"{gemm.name}.channel_scale", factor)], name=f"{name}.scaled")
    made = product.outputs[0]
    made.shape, made.type = raw.shape, ir.TensorType(ir.DataType.FLOAT)
    raw.replace_all_uses_with(made)
    product.replace_input_with(0, raw)
    raw.name, made.name = f"{name}{UNSCALED}", name
    model.graph.insert_after(gemm, product)
