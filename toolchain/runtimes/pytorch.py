"""PyTorch: the checkpoint itself, the reference that everything else is compared with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import UsageError
from toolchain.model import Source, load_model
from toolchain.runtimes.attention import PADDED, use
from toolchain.runtimes.device import choose_device, cpu_threads
from toolchain.tensors import Batch, Infer

if TYPE_CHECKING:
    import torch


@contextmanager
def open_torch(
    source: Source, *, device: str = "auto", precision: str = "fp32", attention: str | None = None
) -> Iterator[Infer]:
    """Yield `infer` of the checkpoint in float32, or with its weights cast to bf16 or fp16.

    `attention` is a name of runtimes/attention.py; None is the model's own choice.

    Raises:
        MachineError: the attention cannot be had here.
        UsageError: a precision or attention that PyTorch runs no checkpoint in.
    """
    with open_module(source, device=device, precision=precision, attention=attention) as module:
        yield lambda batch: forward(module, batch)


@contextmanager
def open_module(
    source: Source, *, device: str = "auto", precision: str = "fp32", attention: str | None = None
) -> Iterator["torch.nn.Module"]:
    """Yield the module itself, on its device, for `forward`; whoever still holds it then holds no weights.

    Raises:
        UsageError: a precision that PyTorch runs no checkpoint in.
    """
    import torch

    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in types:
        raise UsageError(f"--precision {precision}: not with --backend torch. Choose fp32, bf16 or fp16.")
    place = choose_device(device, cuda=torch.cuda.is_available())
    torch.set_num_threads(cpu_threads())
    padded = attention if attention in PADDED else None
    module = load_model(source, attention=padded).to(place, types[precision])
    if attention != padded:
        use(module, str(attention))
    try:
        yield module
    finally:
        module.to("meta")
        if place != "cpu":
            torch.cuda.empty_cache()


def forward(module: "torch.nn.Module", batch: Batch) -> NDArray[np.float32]:
    """Return the logits of a batch, float32 [batch, classes]; the device is idle then."""
    import torch

    place = next(module.parameters()).device
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(array).to(place) for name, array in batch.items()}
        # Copying to the host waits for the device, so it is idle when this returns.
        return np.asarray(module(**inputs).logits.float().cpu().numpy())
