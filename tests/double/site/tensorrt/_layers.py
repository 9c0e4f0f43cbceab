"""What the inspector of an engine shows: a plausible list of kernels, derived from the graph."""

from . import _graph
from ._setup import SM as _SM
from ._types import say as _say

_WORDS = {"FLOAT": "FP32", "HALF": "FP16", "INT8": "Int8", "INT32": "Int32", "INT64": "Int64", "BOOL": "Bool"}
_LETTERS = {"Int8": "i8i8_i8i32_f32", "FP16": "f16f16_f16f16_f16", "FP32": "f32f32_f32f32_f32"}
_ARCH = "sm" + _SM.replace(".", "")
PRODUCTS = ("MatMul", "Gemm", "Conv")


class _View:
    """A graph with its nodes by what they make and by what takes it."""

    def __init__(self, model, network):
        self.nodes = list(model.graph.node)
        self.makes = {name: node for node in self.nodes for name in node.output}
        self.takes = {}
        for node in self.nodes:
            for name in node.input:
                self.takes.setdefault(name, []).append(node)
        self.constants = _graph.initializers(model)
        self.network = network

    def maker(self, name, through=("Transpose", "Reshape")):
        """The node that makes a tensor, looking past those that only move it."""
        node = self.makes.get(name)
        while node is not None and node.op_type in through:
            node = self.makes.get(node.input[0])
        return node

    def dequantized(self, node):
        found = [self.maker(name) for name in node.input[:2]]
        return all(made is not None and made.op_type == "DequantizeLinear" for made in found)

    def type(self, name):
        return _WORDS.get(self.network._type(name).name, "FP32")

    def described(self, name, word=None):
        return {
            "Name": name,
            "Location": "Device",
            "Dimensions": list(self.network._shape(name)),
            "Format/Datatype": f"Row major linear {word or self.type(name)}",
        }


def layers(model, network, scales, half):
    """The kernels of an engine.

    Args:
        model: the graph.
        network: it, as a network.
        scales: the tensors that have a scale by calibration; None where nothing was calibrated.
        half: whether a weakly typed network may compute in FP16.
    """
    view = _View(model, network)
    attention = [group for group in _attention(view) if _fusable(view, group, half)]
    found, inside = [], {id(node) for group in attention for node in group}
    if scales is not None and not _graph.has_plugins(model) and not any(n.op_type == "Conv" for n in view.nodes):
        return [_foreign(view, half)]  # a transformer without plugins: one region, and no calibrated type in it
    for node in view.nodes:
        if id(node) in inside:
            continue
        made = _layer(view, node, scales, half)
        if made is not None:
            found.append(made)
    for number, group in enumerate(attention):
        found.append(_fused(view, group, number, half))
    return found


def _layer(view, node, scales, half):
    if node.op_type in PRODUCTS:
        return _product(view, node, scales, half)
    if node.domain == _graph.PLUGINS:
        return _made(view, node, "PluginV2", node.op_type, "Int8" if _scaled(node, scales) else _float(half))
    if node.op_type == "QuantizeLinear" and node.input[0] not in view.constants:
        about = _made(view, node, "Reformat", "0x00000000000003e8", None)
        about["Name"] = f"Reformatting CopyNode for Input Tensor 0 to {node.name}"
        return about | {"Origin": "QUANTIZE"}
    if node.op_type in ("LayerNormalization", "Softmax", "Gather", "Gelu", "Erf", "Add", "Mul"):
        return _made(view, node, "kgen", f"__myl_{node.op_type}_{_float(half) or view.type(node.output[0])}", None)
    return None


def _float(half):
    return "FP16" if half else None


def _scaled(node, scales):
    return scales is not None and node.input[0] in scales and node.output[0] in scales


def _product(view, node, scales, half):
    word = view.type(node.output[0])
    if view.dequantized(node) or (node.op_type == "Conv" and _scaled(node, scales)):
        word = "Int8"
    elif half:
        word = "FP16"
    kind = "fprop_implicit" if node.op_type == "Conv" else "gemm"
    tactic = f"{_ARCH}_xmma_{kind}_{_LETTERS.get(word, _LETTERS['FP32'])}_tn_n_tilesize128x128x64_stage1"
    return _made(view, node, "CaskConvolution" if node.op_type == "Conv" else "gemm", tactic, word)


def _made(view, node, kind, tactic, word):
    inputs = [name for name in node.input if name and name not in view.constants]
    if word == "Int8":  # the kernel reads what stands before the DequantizeLinear
        inputs = [
            made.input[0] if (made := view.maker(name)) is not None and made.op_type == "DequantizeLinear" else name
            for name in inputs
        ]
    outputs = [view.described(name) for name in node.output if name]
    return {
        "Name": node.name or node.output[0],
        "LayerType": kind,
        "Inputs": [view.described(name, word) for name in inputs if name not in view.constants],
        "Outputs": outputs,
        "TacticName": tactic,
        "StreamId": 0,
        "Metadata": f"[ONNX Layer: {node.name}]",
    }


def _attention(view):
    """Groups of nodes that become one kernel: product, softmax, product, and what lies between."""
    groups = []
    for node in view.nodes:
        if node.op_type != "Softmax":
            continue
        past = ("Add", "Mul", "Div", "Where", "Cast", "DequantizeLinear", "QuantizeLinear", "IsNaN")
        first = view.maker(node.input[0], past)
        second, between = _following(view, node, past)
        if first is not None and first.op_type == "MatMul" and second is not None:
            groups.append([first, node, *between, second])
    return groups


def _following(view, node, past):
    """The product that takes a node's result, and the nodes on the way to it."""
    between = []
    while takers := view.takes.get(node.output[0]):
        product = next((taker for taker in takers if taker.op_type == "MatMul"), None)
        if product is not None:
            return product, between
        node = takers[-1]
        if node.op_type not in past:
            break
        between.append(node)
    return None, between


def _fusable(view, group, half):
    """Only what is computed in FP16 or INT8 becomes one kernel."""
    first, second = group[0], group[-1]
    eight = view.dequantized(first) and view.dequantized(second)
    return eight or half or view.type(second.output[0]) == "FP16"


def _fused(view, group, number, half):
    first, second = group[0], group[-1]
    word = "Int8" if view.dequantized(first) and view.dequantized(second) else "FP16" if half else None
    made = _made(view, first, "kgen", f"_gemm_mha_v2_0x{number:032x}", word)
    made["Inputs"] += _made(view, second, "", "", word)["Inputs"][1:]
    made["Outputs"] = [view.described(name) for name in second.output]
    made["Metadata"] = "".join(f"[ONNX Layer: {node.name}]" for node in group)
    return made | {"Name": f"_gemm_mha_v2_myl0_{number}"}


def _foreign(view, half):
    first, last = view.nodes[0], view.nodes[-1]
    made = _made(view, first, "Myelin", "", "FP16" if half else None)
    made["Name"] = f"{{ForeignNode[{first.name}...{last.name}]}}"
    return made | {"Outputs": [view.described(name) for name in last.output]}


def written_layers(network, scales, half):
    """The kernels of a network written by the API: INT8 where a convolution or plugin has both its scales."""
    found = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kind = layer.type.name
        ports = [[layer.get_input(i) for i in range(layer.num_inputs)]]
        ports.append([layer.get_output(i) for i in range(layer.num_outputs)])
        ends = ports[0][0].name if ports[0] else "", ports[1][0].name
        heavy = kind in ("CONVOLUTION", "PLUGIN_V2", "PLUGIN_V3")
        eight = heavy and scales is not None and all(name in scales for name in ends)
        word = "Int8" if eight else "FP16" if half else "FP32"
        about = [[_port(tensor, word) for tensor in tensors if tensor is not None] for tensors in ports]
        tactic = f"{_ARCH}_xmma_fprop_implicit_{_LETTERS[word]}_tn_n" if kind == "CONVOLUTION" else "0x0"
        found.append({"Name": layer.name, "LayerType": kind, "Inputs": about[0], "Outputs": about[1]})
        found[-1] |= {"TacticName": tactic, "StreamId": 0, "Metadata": ""}
    return found


def _port(tensor, word):
    kind = _WORDS.get(tensor.dtype.name, "FP32")
    word = word if kind in ("FP32", "FP16") else kind
    sizes = [int(size) for size in tensor.shape]
    port = {"Name": tensor.name, "Location": "Device", "Dimensions": sizes}
    return port | {"Format/Datatype": f"Row major linear {word}"}


def without_int8(found):
    """The same kernels, none of them in INT8."""
    for layer in found:
        layer["TacticName"] = layer["TacticName"].replace(_LETTERS["Int8"], _LETTERS["FP16"])
        for port in (*layer["Inputs"], *layer["Outputs"]):
            port["Format/Datatype"] = port["Format/Datatype"].replace("Int8", "FP16")
    return found


def warn_of_missing(names, logger):
    for name in names:
        _say(
            logger,
            "WARNING",
            f"Missing scale and zero-point for tensor {name}, expect fall back to non-int8 "
            "implementation for any layer consuming or producing given tensor",
        )
