"""Runtimes: one module for each backend that runs a model.

To add one, write a module here and add its line to BACKENDS (recipe/tables.py).

A runtime is a context manager. It takes a model (a checkpoint for torch, a graph for ort, a plan for trt, a server's
address for triton and service), a device and a precision, and yields `infer`, which maps a batch to float32 logits. It
loads nothing before it is entered and frees everything when it is left. The device is idle whenever `infer` returns, so
a meter needs no knowledge of frameworks. A runtime that would run on another device than asked raises MachineError.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from toolchain.base.progress import still
from toolchain.base.tensors import Infer
from toolchain.recipe.tables import BACKENDS, imported
from toolchain.runtimes.cascade import FirstStage, in_stages


@contextmanager
def open_runtime(backend: str, model: Any, **choices: Any) -> Iterator[Infer]:
    """Open the runtime of `backend` for `model`, with its keyword arguments (device, precision and others).

    With a first `stage`, it runs only the rows of which that is not sure. While it is open, no thread draws progress,
    because what it does may be timed.

    Raises:
        MachineError: this machine lacks the backend or the device.
    """
    stage: FirstStage | None = choices.pop("stage", None)
    with ExitStack() as opened:
        infer: Infer = opened.enter_context(imported(BACKENDS[backend].opener)(model, **choices))
        if stage:
            infer = in_stages(opened.enter_context(stage.open(choices)), infer, stage.threshold)
        opened.enter_context(still())
        yield infer
