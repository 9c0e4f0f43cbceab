"""Runtimes: one module for each backend that runs a model.

To add one, write a module here and add its line to BACKENDS (recipe/tables.py).

A runtime is a context manager. It takes a model (a checkpoint for torch, a graph for ort, a plan for trt, a server's
address for triton and service), a device and a precision, and yields `infer`, which maps a batch to float32 logits. It
loads nothing before it is entered and frees everything when it is left. The device is idle whenever `infer` returns, so
that time and energy can be measured without calls to a framework. A runtime raises MachineError rather than run on
another device than the one that was asked for.
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
    """Open the runtime of `backend` for `model`, and yield its `infer`, which maps a batch to logits.

    `choices` are keyword arguments of the runtime (device, precision and others). The argument `stage` is the first
    stage of a cascade: `model` then runs only the rows that the first stage is not sure of. While the runtime is open,
    no thread draws progress, because that would disturb a measurement.

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
