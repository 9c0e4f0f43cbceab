"""Runtimes by name. To add one: write a module here and add its line to BACKENDS (recipe/tables.py).

A runtime is a context manager that takes what runs (a checkpoint for torch, a graph for ort, a plan for trt, a server's
address for triton and service), a device and a precision, and yields `infer`: a batch in, float32 logits out. Nothing
is loaded before it is entered, everything is freed when it is left, and the device is idle whenever `infer` returns, so
that a meter needs to know nothing of frameworks. A runtime that would run elsewhere than asked raises MachineError
instead.
"""

from contextlib import AbstractContextManager
from typing import Any

from toolchain.recipe.tables import BACKENDS, imported
from toolchain.tensors import Infer


def open_runtime(backend: str, model: Any, **choices: Any) -> AbstractContextManager[Infer]:
    """Open `model` on `backend` with keyword `choices` (device, precision).

    Raises:
        MachineError: the backend or the device cannot be had here.
    """
    runtime: AbstractContextManager[Infer] = imported(BACKENDS[backend].opener)(model, **choices)
    return runtime
