"""The saved state of a training run, from which an interrupted run resumes: one safetensors file, replaced atomically.

It has the trained weights, Adam's moving averages, and the progress as JSON in its header. It contains no pickle, so a
state file that somebody else put there cannot run code.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

from toolchain.base.files import open_file, write_bytes
from toolchain.errors import InputError
from toolchain.records.check import find_fault

if TYPE_CHECKING:
    import torch

# Least seconds between two writes of the state, and the largest fraction of the time that writing may take.
SAVE_EVERY_S, SAVE_SHARE = 60.0, 0.05

WEIGHT, ADAM, PROGRESS = "weight/", "adam/", "progress"

# Name of Adam's count of steps, a scalar. Adam's other values have the shape of their parameter.
STEP = "step"


class Progress(TypedDict):
    """How far a training run has got."""

    key: str
    """What identifies the run: its models, rows and settings."""
    step: int
    """Steps that are done."""
    steps: int | None
    """Total number of steps; null with --minutes until it is set."""
    seconds: float
    """Time that the steps done so far took, in seconds."""
    losses: list[float]
    """The loss of each step."""


@dataclass
class State:
    """The trained parameters of a run, by name, their optimizer, and the file in which both are saved.

    With `file` None, nothing is saved or restored.
    """

    file: Path | None
    trained: Mapping[str, "torch.nn.Parameter"]
    optimizer: "torch.optim.Optimizer"
    _next_s: float = field(default_factory=lambda: time.monotonic() + SAVE_EVERY_S)

    def save_now_and_then(self, progress: Progress) -> None:
        """Write the file if enough time has passed since it was last written."""
        if time.monotonic() >= self._next_s:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Write the file atomically: even after a power cut, it has either the old state or the new one."""
        if self.file is None:
            return
        from safetensors.torch import save

        start_s = time.monotonic()
        tensors = {f"{WEIGHT}{name}": one.detach() for name, one in self.trained.items()}
        for index, averages in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{ADAM}{index}/{name}": one for name, one in averages.items()}
        tensors = {name: one.cpu().contiguous() for name, one in tensors.items()}
        write_bytes(self.file, save(tensors, metadata={PROGRESS: json.dumps(progress)}))
        took_s = time.monotonic() - start_s
        self._next_s = time.monotonic() + max(SAVE_EVERY_S, took_s / SAVE_SHARE)

    def restore(self, key: str) -> Progress | None:
        """Load the file into the parameters and the optimizer; return the progress saved in it, or None without a file.

        Raises:
            InputError: the file is damaged, or belongs to another run.
        """
        if self.file is None:
            return None
        try:
            with open_file(self.file) as opened:
                data = opened.read()
        except FileNotFoundError:
            return None
        try:
            progress, tensors = _read(data)
            if progress["key"] == key:
                self._put(tensors)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.file}: this state of an interrupted run is damaged. Give --force to start the run again."
            ) from error
        if progress["key"] != key:
            raise InputError(
                f"{self.file}: this is the state of an interrupted run with other options, models or rows, or with "
                "another device or number of threads. Use the same ones to resume it, or give --force to start again."
            )
        return progress

    def _put(self, tensors: Mapping[str, "torch.Tensor"]) -> None:
        """Copy the tensors of a file into the parameters and the optimizer.

        Raises:
            LookupError, RuntimeError or ValueError: they do not fit the parameters.
        """
        import torch

        shapes = [one.shape for one in self.trained.values()]
        averages: dict[int, dict[str, torch.Tensor]] = {}
        for name in (name for name in tensors if name.startswith(ADAM)):
            index, _, part = name.removeprefix(ADAM).partition("/")
            if part != STEP and tensors[name].shape != shapes[int(index)]:
                raise ValueError(f"{name} has another shape")
            averages.setdefault(int(index), {})[part] = tensors[name]
        with torch.no_grad():
            for name, parameter in self.trained.items():
                found = tensors[f"{WEIGHT}{name}"]
                if found.shape != parameter.shape:  # copy_ would broadcast a single number
                    raise ValueError(f"{name} has another shape")
                parameter.copy_(found)
        self.optimizer.load_state_dict({"state": averages, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _read(data: bytes) -> "tuple[Progress, dict[str, torch.Tensor]]":
    """Return the progress and tensors of a file's bytes. Raise KeyError, TypeError or ValueError if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    # The format of safetensors: eight bytes with the length of the JSON header, the header, then the tensors.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    progress = json.loads(header["__metadata__"][PROGRESS])
    if fault := find_fault(progress, Progress):
        raise ValueError(fault)
    return cast(Progress, progress), tensors
