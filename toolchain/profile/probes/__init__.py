"""Probes by backend: a runtime that also tells where the time of each call went.

A probe opens what the runtime of the same name does. Its `infer` gives the same logits; `spans`, asked once behind the
last call, gives each call's time in pieces, with 0 where the call began. To add one: a module here and its line.
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from toolchain.profile.spans import Span
from toolchain.tensors import Infer

PROBES = {
    "torch": "toolchain.profile.probes.pytorch:probe_torch",
    "ort": "toolchain.profile.probes.ort:probe_ort",
    "trt": "toolchain.profile.probes.trt:probe_trt",
}


@dataclass(frozen=True)
class Probe:
    """What an opened probe offers. `clock` is what its spans were measured by, a word for the record."""

    infer: Infer
    spans: Callable[[], list[list[Span]]]
    clock: str


def open_probe(backend: str, model: Any, **choices: Any) -> AbstractContextManager[Probe]:
    """Open `model` on `backend` with keyword `choices` (device, precision).

    Raises:
        MachineError: the backend or the device cannot be had here.
    """
    module, _, function = PROBES[backend].partition(":")
    probe: AbstractContextManager[Probe] = getattr(importlib.import_module(module), function)(model, **choices)
    return probe
