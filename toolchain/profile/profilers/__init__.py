"""Profiled runtimes by backend: runtimes that also record the time of each part of a call.

A profiled runtime opens the same model as the runtime of its backend, and its `infer` gives the same logits. `spans` is
called once, after the last call, and returns the spans of every call; each call begins at 0. To add a backend, write a
module here and add its line to PROFILERS.
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from toolchain.base.tensors import Infer
from toolchain.profile.spans import Span

PROFILERS = {
    "torch": "toolchain.profile.profilers.pytorch:profile_torch",
    "ort": "toolchain.profile.profilers.ort:profile_ort",
    "openvino": "toolchain.profile.profilers.openvino:profile_openvino",
    "trt": "toolchain.profile.profilers.trt:profile_trt",
    "trt-rtx": "toolchain.profile.profilers.trt:profile_rtx",
}


@dataclass(frozen=True)
class ProfiledRuntime:
    """An opened runtime with a profiler.

    `infer`: runs a batch.
    `spans`: returns the spans of each call.
    `clock`: name of the clock that times the spans, for the record.
    """

    infer: Infer
    spans: Callable[[], list[list[Span]]]
    clock: str


def open_profiler(backend: str, model: Any, **choices: Any) -> AbstractContextManager[ProfiledRuntime]:
    """Open `model` on `backend` with a profiler; `choices` are the keyword arguments `device` and `precision`.

    Raises:
        MachineError: this machine lacks the backend or the device.
    """
    module, _, function = PROFILERS[backend].partition(":")
    opened: AbstractContextManager[ProfiledRuntime] = getattr(importlib.import_module(module), function)(
        model, **choices
    )
    return opened
