"""What TensorRT made of a graph: its engine inspector's JSON, counted."""

import json
import re
from collections import Counter
from typing import Any

PRODUCT = re.compile(r"gemm|conv|matrix_?multiply|matmul|fully_?connected|mha", re.IGNORECASE)
"""Layer types, names and kernels in which numbers are multiplied and summed."""

FUSED_ATTENTION = re.compile(r"mha|fmha|qkvtocontext|fused_?attention|flash", re.IGNORECASE)
REFORMAT = re.compile(r"reformat", re.IGNORECASE)
INT8_KERNEL = re.compile(r"i8i8|int8|_i8_|imma|s8s8|i8816|i8832", re.IGNORECASE)
"""What the names of INT8 tensor-core kernels hold, such as sm75_xmma_gemm_i8i8_i8i32_f32."""

DATATYPES = (
    ("int8", re.compile(r"\bint8\b|\bi8\b", re.IGNORECASE)),
    ("fp16", re.compile(r"\bhalf\b|\bfp16\b|\bfloat16\b|\bf16\b", re.IGNORECASE)),
    ("bf16", re.compile(r"\bbf16\b|\bbfloat16\b", re.IGNORECASE)),
    ("fp32", re.compile(r"\bfloat\b|\bfp32\b|\bfloat32\b|\bf32\b", re.IGNORECASE)),
    ("int32", re.compile(r"\bint32\b|\bi32\b|\bint64\b", re.IGNORECASE)),
)


def summarise(text: str) -> dict[str, Any]:
    """Return what the inspector's JSON of an engine says, as counts.

    Keys: layers, by_type, by_precision (of a layer's first output), products, int8_products, unknown_products (whose
    types the inspector does not tell), fused_attention, reformats, and int8_names, up to ten of the INT8 products.
    Without detailed profiling verbosity an engine lists bare names; then only their number is known, the rest is null.
    """
    layers = json.loads(text).get("Layers", [])
    detailed = [layer for layer in layers if isinstance(layer, dict)]
    if layers and not detailed:
        return {"layers": len(layers), **dict.fromkeys(KEYS)}
    products = [layer for layer in detailed if is_product(layer)]
    verdicts = [(str(layer.get("Name", "")), is_int8(layer)) for layer in products]
    integer = [name for name, verdict in verdicts if verdict]
    return {
        "layers": len(layers),
        "by_type": dict(Counter(str(layer.get("LayerType", "unknown")) for layer in detailed).most_common()),
        "by_precision": dict(Counter(precision_of(layer) for layer in detailed).most_common()),
        "products": len(products),
        "int8_products": len(integer),
        "unknown_products": sum(verdict is None for _, verdict in verdicts),
        "fused_attention": sum(bool(FUSED_ATTENTION.search(_words(layer))) for layer in detailed),
        "reformats": sum(bool(REFORMAT.search(_words(layer))) for layer in detailed),
        "int8_names": integer[:10],
    }


KEYS = (
    "by_type",
    "by_precision",
    "products",
    "int8_products",
    "unknown_products",
    "fused_attention",
    "reformats",
    "int8_names",
)


def _words(layer: dict[str, Any]) -> str:
    return " ".join(str(layer.get(key, "")) for key in ("LayerType", "Name", "TacticName", "PluginType"))


def is_product(layer: dict[str, Any]) -> bool:
    """Whether a layer multiplies matrices; one that only changes a format does not, whatever its name."""
    words = _words(layer)
    multiplies = PRODUCT.search(words) or FUSED_ATTENTION.search(words)
    return bool(multiplies) and not REFORMAT.search(str(layer.get("LayerType", "")))


def is_int8(layer: dict[str, Any]) -> bool | None:
    """Whether a product reads int8 or runs in a kernel named after it; None if neither its types nor its name tell.

    Of a layer whose shapes vary, the inspector may write `N/A due to dynamic shapes` instead of a type.
    """
    types = {datatype(entry) for entry in layer.get("Inputs", [])}
    if "int8" in types or INT8_KERNEL.search(str(layer.get("TacticName", ""))):
        return True
    return None if types <= {"other"} else False


def precision_of(layer: dict[str, Any]) -> str:
    """Return the type of a layer's first output."""
    outputs = layer.get("Outputs") or []
    return datatype(outputs[0]) if outputs else "none"


def datatype(entry: dict[str, Any]) -> str:
    """Return the type of one input or output, from `Format/Datatype` or `Datatype`."""
    text = f"{entry.get('Format/Datatype', '')} {entry.get('Datatype', '')} {entry.get('Format', '')}"
    return next((name for name, pattern in DATATYPES if pattern.search(text)), "other")
