"""Profile PyTorch with hooks that mark the boundaries between parts, on the clock of the host or of the GPU."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch
from toolchain.checkpoint.model import Source
from toolchain.profile.anatomy import Anatomy, find_anatomy
from toolchain.profile.groups import Place
from toolchain.profile.profilers import ProfiledRuntime
from toolchain.profile.spans import US, Ranges, Span, end_to_end, nvtx_ranges
from toolchain.runtimes.pytorch import forward, open_module

if TYPE_CHECKING:
    from torch import nn

# A time stamp: seconds on a CPU, or a CUDA event on a GPU.
Stamp = Any


@dataclass
class Marks:
    """The time stamps of one call. A part of the model begins at each of them; each part also has an NVTX range.

    `stamp` returns a time stamp, and `between` the microseconds between two time stamps.
    """

    stamp: Callable[[], Stamp]
    between: Callable[[Stamp, Stamp], float]
    ranges: Ranges | None = None
    found: list[tuple[str, Place, Stamp]] = field(default_factory=list)

    def mark(self, name: str, place: Place) -> None:
        """End the current part and begin the part `name`."""
        if self.ranges:
            if self.found:
                self.ranges.pop()
            self.ranges.push(str(place))
        self.found.append((name, place, self.stamp()))

    def end(self) -> list[Span]:
        """End the call; return the spans of its parts, which leave no gap, and clear the time stamps."""
        if self.ranges:
            self.ranges.pop()
        moments = [*(stamp for _, _, stamp in self.found), self.stamp()]
        pairs = zip(self.found, moments[:-1], moments[1:], strict=True)
        spans = end_to_end((name, place, self.between(one, other)) for (name, place, _), one, other in pairs)
        self.found.clear()
        return spans


@contextmanager
def profile_torch(source: Source, *, device: str = "auto", precision: str = "fp32") -> Iterator[ProfiledRuntime]:
    """Yield a profiled runtime of a checkpoint.

    Raises:
        InputError: the checkpoint is not an encoder classifier whose parts can be found.
        UsageError: PyTorch does not run checkpoints in this precision.
    """
    with open_module(source, device=device, precision=precision) as module:
        place = next(module.parameters()).device.type
        marks = on_gpu(place) if place != "cpu" else Marks(time.perf_counter, lambda one, other: (other - one) * US)
        calls: list[list[Span]] = []
        hooked: list[Any] = []

        def infer(batch: Batch) -> NDArray[np.float32]:
            if not hooked:
                anatomy = find_anatomy(module, lambda: forward(module, batch))
                hooked.extend(hook(module, anatomy, marks))
            marks.mark("batch to device", Place("copy"))
            logits = forward(module, batch)
            calls.append(marks.end())
            return logits

        yield ProfiledRuntime(infer, lambda: calls, "host" if place == "cpu" else "cuda_events")


def on_gpu(device: str) -> Marks:
    """Return marks whose time stamps are CUDA events, which are synchronised only after the call."""
    import torch

    def stamp() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between(one: torch.cuda.Event, other: torch.cuda.Event) -> float:
        other.synchronize()
        return 1000 * float(one.elapsed_time(other))

    return Marks(stamp, between, nvtx_ranges(device))


def hook(module: "nn.Module", anatomy: Anatomy, marks: Marks) -> list[Any]:
    """Register hooks that mark the beginning of each part whenever the module runs; return their handles."""
    names = {part: name for name, part in module.named_modules()}

    def before(part: "nn.Module", name: str, place: Place) -> Any:
        return part.register_forward_pre_hook(lambda *_: marks.mark(name, place))

    def behind(part: "nn.Module", name: str, place: Place) -> Any:
        return part.register_forward_hook(lambda *_: marks.mark(name, place))

    # The hook of the outermost module is registered first and so runs first. If an inner part begins at the same
    # moment, its mark replaces the outer mark.
    hooks = [
        before(module, "embedding", Place("embedding")),
        behind(anatomy.embedding, "attention mask", Place("attention")),
    ]
    for number, layer in enumerate(anatomy.layers):
        name = names[layer.module]
        border = behind if layer.post else before
        hooks += [
            before(layer.module, f"{name}.attention", Place("attention", number)),
            border(layer.border, f"{name}.feed_forward", Place("feed_forward", number)),
        ]
    hooks += [behind(anatomy.layers[-1].module, "head", Place("head")), behind(module, "logits to host", Place("copy"))]
    return hooks
