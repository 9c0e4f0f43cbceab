"""A pass for TensorRT-RTX: all integer weights behind one scale, and a Mul by each channel's own after the GEMM.

TensorRT-RTX lets the raw integer sums of a GEMM leave it in float16 if its weights have a scale for each channel, and
applies the scales in the next kernel. The largest float16 is 65,504, and sums of real models are several times that.
With one scale for the whole weight the GEMM itself applies it, so sums leave it in the size of the activation. A Mul
gives each channel the rest of its scale; it costs nothing, because the next kernel has that multiplication anyway.
The scale is the same for the whole model, because TensorRT-RTX joins the GEMMs of query, key and value only then.
"""

import numpy as np
import onnx_ir as ir

from toolchain.graph import add_initializer, constant, nodes

NAME = "weights.int8"

# The end of the name of a GEMM's output before the Mul.
UNSCALED = ".unscaled"


def common_scale(model: ir.Model) -> int:
    """Give every quantized weight the same scale, before fp16.to_half; return the number of GEMMs that have a Mul now.

    The scale is the power of two nearest to the median of all scales, so that dividing by it rounds nothing.
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
    """Multiply the output of a GEMM, float32 [..., out], by `factor`, float32 [out]; the result takes its name."""
    raw = gemm.outputs[0]
    name = str(raw.name)
    product = ir.node("Mul", [raw, add_initializer(model, f"{gemm.name}.channel_scale", factor)], name=f"{name}.scaled")
    made = product.outputs[0]
    made.shape, made.type = raw.shape, ir.TensorType(ir.DataType.FLOAT)
    raw.replace_all_uses_with(made)
    product.replace_input_with(0, raw)
    raw.name, made.name = f"{name}{UNSCALED}", name
    model.graph.insert_after(gemm, product)
