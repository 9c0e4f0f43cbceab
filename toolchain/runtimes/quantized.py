"""A PyTorch encoder's linear layers in INT8 or FP8 by torchao: each token's activations by their own range.

Not the INT8 of a bundle: nothing is calibrated. The layers of the encoder alone are quantised; pooler and classifier,
one vector a row, stay as they are. Made to be compiled: without that, quantising takes longer than it saves.
"""

from typing import TYPE_CHECKING, Any

from toolchain.errors import MachineError

if TYPE_CHECKING:
    import torch

QUANTIZED = ("int8", "fp8")


def quantize(module: "torch.nn.Module", precision: str) -> int:
    """Quantise the encoder's linear layers in place; return how many there are.

    Raises:
        MachineError: torchao is not installed, or has no such kernel for this device.
    """
    import torch

    try:
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            Int8DynamicActivationInt8WeightConfig,
            quantize_,
        )
    except ImportError as error:
        raise MachineError(
            f"--precision {precision}: on PyTorch it needs torchao. Install it with: pip install torchao."
        ) from error
    prefix: Any = module.base_model_prefix
    found: list[str] = []

    def of_encoder(layer: "torch.nn.Module", name: str) -> bool:
        taken = isinstance(layer, torch.nn.Linear) and name.startswith(f"{prefix}.") and "pooler" not in name
        found.extend([name] if taken else [])
        return taken

    kinds = {"int8": Int8DynamicActivationInt8WeightConfig, "fp8": Float8DynamicActivationFloat8WeightConfig}
    try:
        quantize_(module, kinds[precision](), filter_fn=of_encoder)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = (str(error).strip() or type(error).__name__).split("\n")[0].rstrip(".")
        raise MachineError(f"--precision {precision}: torchao cannot quantise here ({first}). Choose fp16.") from error
    return len(found)
