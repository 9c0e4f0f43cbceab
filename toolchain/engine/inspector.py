"""Counts the layers of an engine by type and precision, from the JSON of TensorRT's engine inspector."""

import json
import re
from collections import Counter
from typing import Any

from toolchain.records.plan import LayerCounts

# Parts of the types, names or kernels of layers that compute a GEMM, a convolution or fused attention, and of layers
# that only change the format of a tensor (REFORMAT).
GEMM = re.compile(r"gemm|conv|matrix_?multiply|matmul|fully_?connected|mha", re.IGNORECASE)
FUSED_ATTENTION = re.compile(r"mha|fmha|qkvtocontext|fused_?attention|flash", re.IGNORECASE)
REFORMAT = re.compile(r"reformat", re.IGNORECASE)

# Parts of the names of INT8 tensor-core kernels, such as sm75_xmma_gemm_i8i8_i8i32_f32.
INT8_KERNEL = re.compile(r"i8i8|int8|_i8_|imma|s8s8|i8816|i8832", re.IGNORECASE)

# A layer in the inspector's JSON. Any: the keys are NVIDIA's and differ between releases.
Layer = dict[str, Any]

# Name in reports -> pattern of the datatype in the inspector's JSON. The first pattern that matches counts.
DATATYPES = (
    ("fp8", re.compile(r"\bfp8\b|\be4m3", re.IGNORECASE)),
    ("int8", re.compile(r"\bint8\b|\bi8\b", re.IGNORECASE)),
    ("fp16", re.compile(r"\bhalf\b|\bfp16\b|\bfloat16\b|\bf16\b", re.IGNORECASE)),
    ("bf16", re.compile(r"\bbf16\b|\bbfloat16\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\bfloat\b|\bfp32\b|\bfloat32\b|\bf32\b", re.IGNORECASE)),
    ("int32", re.compile(r"\bint32\b|\bi32\b|\bint64\b", re.IGNORECASE)),
)


def count_layers(text: str) -> LayerCounts:
    """Return the counts of an engine's layers. `text` is the JSON of TensorRT's engine inspector.

    An engine built without detailed profiling verbosity lists only the names of its layers. All counts except `layers`
    are then None.
    """
    layers = json.loads(text).get("Layers", [])
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    if layers and not detailed:
        return _names_only(len(layers))
    gemms = [layer for layer in detailed if is_gemm(layer)]
    verdicts = [(str(layer.get("Name", "")), is_int8(layer)) for layer in gemms]
    integer = [name for name, verdict in verdicts if verdict]
    fp8 = sum("fp8" in _read(layer) for layer in gemms)
    counts: LayerCounts = {
        "layers": len(layers),
        "by_type": dict(Counter(str(layer.get("LayerType", "unknown")) for layer in detailed).most_common()),
        "by_precision": dict(Counter(precision_of(layer) for layer in detailed).most_common()),
        "products": len(gemms),
        "int8_products": len(integer),
        "unknown_products": sum(verdict is None for _, verdict in verdicts),
        "fused_attention": sum(bool(FUSED_ATTENTION.search(_text(layer))) for layer in detailed),
        "reformats": sum(bool(REFORMAT.search(_text(layer))) for layer in detailed),
        "int8_names": integer[:10],
    }
    return {**counts, "fp8_products": fp8} if fp8 else counts


def _names_only(layers: int) -> LayerCounts:
    return {
        "layers": layers,
        "by_type": None,
        "by_precision": None,
        "products": None,
        "int8_products": None,
        "unknown_products": None,
        "fused_attention": None,
        "reformats": None,
        "int8_names": None,
    }


def _text(layer: Layer) -> str:
    return " ".join(str(layer.get(key, "")) for key in ("LayerType", "Name", "TacticName", "PluginType"))


def is_gemm(layer: Layer) -> bool:
    """Return whether a layer computes a GEMM, a convolution or fused attention.

    A reformat layer does not, even if its name contains that of a GEMM.
    """
    text = _text(layer)
    multiplies = GEMM.search(text) or FUSED_ATTENTION.search(text)
    return bool(multiplies) and not REFORMAT.search(str(layer.get("LayerType", "")))


def is_int8(layer: Layer) -> bool | None:
    """Return whether a layer reads int8 or runs an INT8 kernel; None if its types and its kernel do not tell.

    If the shapes of a layer vary, the inspector may write `N/A due to dynamic shapes` instead of a type.
    """
    types = _read(layer)
    if "int8" in types or INT8_KERNEL.search(str(layer.get("TacticName", ""))):
        return True
    return None if types <= {"other"} else False


def _read(layer: Layer) -> set[str]:
    """Return the datatypes of a layer's inputs, by their names in DATATYPES."""
    return {datatype(entry) for entry in layer.get("Inputs", [])}


def precision_of(layer: Layer) -> str:
    """Return the datatype of a layer's first output, or `none` if it has no output."""
    outputs = layer.get("Outputs") or []
    return datatype(outputs[0]) if outputs else "none"


def datatype(entry: Layer) -> str:
    """Return the datatype of one input or output of a layer, by its name in DATATYPES, or `other`."""
    text = f"{entry.get('Format/Datatype', '')} {entry.get('Datatype', '')} {entry.get('Format', '')}"
    return next((name for name, pattern in DATATYPES if pattern.search(text)), "other")
