"""The PyTorch runtime: it runs the checkpoint itself, with which every other backend is compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch, Infer
from toolchain.checkpoint.facts import outputs
from toolchain.checkpoint.model import Source, load_model
from toolchain.errors import MachineError, UsageError, first_line
from toolchain.runtimes.attention import PADDED, attend_without_padding
from toolchain.runtimes.cuda_graphs import GraphRunner, cuda_capture
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.quantized import QUANTIZED, quantize

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
    """Yield `infer`, a function that runs a checkpoint on a batch in PyTorch.

    Args:
        source: the checkpoint.
        device: `auto`, `cpu` or `cuda[:N]`.
        precision: fp32; bf16 or fp16, to which the weights are cast; int8 or fp8, quantized by torchao.
        attention: a kind that runtimes/attention.py describes; None means the model's default.
        compiled: compile the model with torch.compile, for dynamic shapes.
        cuda_graphs: capture a CUDA graph for each bucket and replay it (cuda_graphs.py).

    Raises:
        MachineError: this machine lacks a kernel for the attention or the precision, or a compiler.
        UsageError: the precision or the attention is not one for PyTorch, or two options exclude each other.
    """
    if attention not in (None, *PADDED) and (compiled or cuda_graphs):
        flag = "--compile" if compiled else "--cuda-graphs"
        raise UsageError(
            f"{flag}: cannot be combined with --attention {attention}, whose batches all differ in shape. "
            "Choose --attention sdpa."
        )
    with open_module(source, device=device, precision=precision, attention=attention) as module:
        if compiled:
            module.compile(dynamic=True)
        place = str(next(module.parameters()).device)
        if cuda_graphs and place == "cpu":
            raise UsageError("--cuda-graphs: a CPU has no CUDA graphs. Leave the option out, or choose --device cuda.")
        runs = [
            GraphRunner(partial(_logits, module), place, cuda_capture(place), _longest(source)).run
            if cuda_graphs
            else partial(forward, module)
        ]

        def infer(batch: Batch) -> NDArray[np.float32]:
            with _compiler_errors(compiled=compiled):
                return runs[0](batch)

        try:
            yield infer
        finally:
            runs.clear()  # frees the captured graphs too


@contextmanager
def _compiler_errors(*, compiled: bool) -> Iterator[None]:
    """Run the body; turn an exception of torch.compile into a MachineError that names `--compile`.

    Raises:
        MachineError: torch.compile failed.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        if not compiled:
            raise
        why = first_line(error).rstrip(".")
        raise MachineError(
            f"--compile: PyTorch cannot compile the model ({why}). Install a C++ compiler, or leave the option out."
        ) from error


def _longest(source: Source) -> int:
    """Return the largest length in tokens for which CUDA graphs are captured: the model's limit, or 512 without one."""
    return source.facts.longest or 512


@contextmanager
def open_module(
    source: Source, *, device: str = "auto", precision: str = "fp32", attention: str | None = None
) -> Iterator["torch.nn.Module"]:
    """Load a checkpoint as a module on a device, ready for `forward`, and yield it.

    At the end its weights are freed, even if a caller still has the module.

    Raises:
        MachineError: the precision needs torchao, which is missing or lacks a kernel for this device.
        UsageError: the precision is not one for PyTorch.
    """
    import torch

    place = choose_device(device, cuda=torch.cuda.is_available())
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    types |= dict.fromkeys(QUANTIZED, _type_between_gemms(place))
    if precision not in types:
        raise UsageError(
            f"--precision {precision}: cannot be used with --backend torch. Choose fp32, bf16, fp16, int8 or fp8."
        )
    padded = attention if attention in PADDED else None
    module = load_model(source, attention=padded).to(place, types[precision])
    if precision in QUANTIZED:
        quantize(module, precision)
    if attention != padded:
        attend_without_padding(module, str(attention))
    try:
        yield module
    finally:
        _release(module)
        if place != "cpu":
            torch.cuda.empty_cache()


def _release(module: "torch.nn.Module") -> None:
    """Free the weights of a module, even if a caller still has it.

    `module.to("meta")` would do so too, but refuses a quantized module that was compiled.
    """
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            held.update(dict.fromkeys(held))


def has_gpu() -> bool:
    """Return whether PyTorch can use a GPU here."""
    import torch

    return torch.cuda.is_available()


def _type_between_gemms(place: str) -> "torch.dtype":
    """Return the dtype of everything that a quantized model computes outside its INT8 or FP8 GEMMs.

    It is bfloat16 on a CPU and on a GPU that supports it, otherwise float16.
    """
    import torch

    if place == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def forward(module: "torch.nn.Module", batch: Batch) -> NDArray[np.float32]:
    """Return the logits of a batch, float32 [batch, classes]. The device is idle when it returns."""
    import torch

    place = next(module.parameters()).device
    with torch.inference_mode():
        inputs = {name: torch.from_numpy(array).to(place) for name, array in batch.items()}
        # The copy to the host waits for the device, so the device is idle when this function returns.
        return np.asarray(_logits(module, inputs).cpu().numpy())


def _logits(module: "torch.nn.Module", inputs: "dict[str, torch.Tensor]") -> "torch.Tensor":
    found: torch.Tensor = outputs(module, inputs).float()
    return found
