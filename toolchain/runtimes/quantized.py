"""INT8 or FP8 in PyTorch by torchao: linear layers are quantized dynamically, with an activation scale per token.

This is not the INT8 of a bundle, because nothing is calibrated. Only the linear layers of the encoder are quantized,
not the pooler and the classifier, which read one vector per row. Use it with torch.compile: without it, the
quantization of activations takes more time than it saves.
"""

from typing import TYPE_CHECKING, Any

from toolchain.errors import MachineError, first_line

if TYPE_CHECKING:
    import torch

# Quantized precisions that torchao provides.
QUANTIZED = ("int8", "fp8")


def quantize(module: "torch.nn.Module", precision: str) -> int:
    """Quantize the encoder's linear layers in place to `int8` or `fp8`; return how many there are.

    Raises:
        MachineError: torchao is not installed, or lacks a kernel for this device.
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
            f"--precision {precision}: PyTorch needs torchao for it. Install it with: pip install torchao."
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
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torchao asserts what hardware it needs
        why = first_line(error).rstrip(".")
        raise MachineError(f"--precision {precision}: torchao cannot quantize here ({why}). Choose fp16.") from error
    return len(found)
