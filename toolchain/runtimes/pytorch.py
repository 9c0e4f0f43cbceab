"""PyTorch: the checkpoint itself, the reference that everything else is compared with."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.checkpoint.model import Source, load_model
from toolchain.errors import MachineError, UsageError
from toolchain.runtimes.attention import PADDED, use
from toolchain.runtimes.cuda_graphs import Recorder, cuda_capture
from toolchain.runtimes.device import choose_device, cpu_threads
from toolchain.runtimes.quantized import QUANTIZED, quantize
from toolchain.tensors import Batch, Infer

if TYPE_CHECKING:
    import torch


@contextmanager
def open_torch(
    source: Source,
    *,
    device: str = "auto",
    precision: str = "fp32",
    attention: str | None = None,
    compiled: bool = False,
    cuda_graphs: bool = False,
) -> Iterator[Infer]:
    """Yield `infer` of the checkpoint in float32, with its weights cast to bf16 or fp16, or quantised by torchao.

    `attention` is a name of runtimes/attention.py; None is the model's own choice. `compiled`: by torch.compile, for
    every shape at once. `cuda_graphs`: each bucket is recorded once and replayed (recorded.py).

    Raises:
        MachineError: the attention, the precision or a compiler cannot be had here.
        UsageError: a precision or attention that PyTorch runs no checkpoint in, or that does not go with the rest.
    """
    if attention not in (None, *PADDED) and (compiled or cuda_graphs):
        flag = "--compile" if compiled else "--cuda-graphs"
        raise UsageError(f"{flag}: not with --attention {attention}, whose batches have all shapes. Choose sdpa.")
    with open_module(source, device=device, precision=precision, attention=attention) as module:
        if compiled:
            module.compile(dynamic=True)
        place = str(next(module.parameters()).device)
        if cuda_graphs and place == "cpu":
            raise UsageError("--cuda-graphs: there are none on a CPU. Leave it out, or choose --device cuda.")
        runs = [
            Recorder(partial(_logits, module), place, cuda_capture(place), _longest(source)).run
            if cuda_graphs
            else partial(forward, module)
        ]

        def infer(batch: Batch) -> NDArray[np.float32]:
            with _told(compiled=compiled):
                return runs[0](batch)

        try:
            yield infer
        finally:
            runs.clear()  # and with them what was recorded


@contextmanager
def _told(*, compiled: bool) -> Iterator[None]:
    """Say plainly that it is compiling that fails.

    Raises:
        MachineError: it is.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        if not compiled:
            raise
        first = str(error).strip().split("\n")[0].rstrip(".")
        raise MachineError(f"--compile: PyTorch cannot ({first}). Install a C++ compiler, or leave it out.") from error


def _longest(source: Source) -> int:
    """Return the longest row that the model has positions for: RoBERTa's kin begin behind the padding id."""
    table = int(source.config.get("max_position_embeddings") or 512)
    return table - (int(source.config.get("pad_token_id") or 0) + 1 if "roberta" in source.type else 0)


@contextmanager
def open_module(
    source: Source, *, device: str = "auto", precision: str = "fp32", attention: str | None = None
) -> Iterator["torch.nn.Module"]:
    """Yield the module itself, on its device, for `forward`; whoever still holds it then holds no weights.

    Raises:
        MachineError: torchao is needed and cannot be had.
        UsageError: a precision that PyTorch runs no checkpoint in.
    """
    import torch

    place = choose_device(device, cuda=torch.cuda.is_available())
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    types |= dict.fromkeys(QUANTIZED, _around_products(place))
    if precision not in types:
        raise UsageError(f"--precision {precision}: not with --backend torch. Choose fp32, bf16, fp16 or int8.")
    torch.set_num_threads(cpu_threads())
    padded = attention if attention in PADDED else None
    module = load_model(source, attention=padded).to(place, types[precision])
    if precision in QUANTIZED:
        quantize(module, precision)
    if attention != padded:
        use(module, str(attention))
    try:
        yield module
    finally:
        module.to("meta")
        if place != "cpu":
            torch.cuda.empty_cache()


def has_gpu() -> bool:
    """Return whether PyTorch can use a GPU here."""
    import torch

    return torch.cuda.is_available()


def _around_products(place: str) -> "torch.dtype":
    """Return the type between integer products: bfloat16 where the device computes in it."""
    import torch

    if place == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def forward(module: "torch.nn.Module", batch: Batch) -> NDArray[np.float32]:
    """Return the logits of a batch, float32 [batch, classes]; the device is idle then."""
    import torch

    place = next(module.parameters()).device
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(array).to(place) for name, array in batch.items()}
        # Copying to the host waits for the device, so it is idle when this returns.
        return np.asarray(_logits(module, inputs).cpu().numpy())


def _logits(module: "torch.nn.Module", inputs: "dict[str, torch.Tensor]") -> "torch.Tensor":
    found: torch.Tensor = module(**inputs).logits.float()
    return found
