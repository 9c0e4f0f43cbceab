"""PyTorch: marks where one part of the model ends and the next begins, on the host's clock or the GPU's."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.checkpoint.model import Source
from toolchain.profile.anatomy import Anatomy, find_anatomy
from toolchain.profile.groups import Place
from toolchain.profile.probes import Probe
from toolchain.profile.spans import US, Ranges, Span, end_to_end, nvtx_ranges
from toolchain.runtimes.pytorch import forward, open_module
from toolchain.tensors import Batch

if TYPE_CHECKING:
    from torch import nn

Stamp = Any
"""A moment: seconds on the host, an event on a GPU."""


@dataclass
class Marks:
    """Moments of one call, each with what begins there; NVTX ranges lie between them.

    `stamp` gives a moment, `between` the microseconds from one to another.
    """

    stamp: Callable[[], Stamp]
    between: Callable[[Stamp, Stamp], float]
    ranges: Ranges | None = None
    found: list[tuple[str, Place, Stamp]] = field(default_factory=list)

    def mark(self, name: str, place: Place) -> None:
        """End what was going on, and begin `name`."""
        if self.ranges:
            if self.found:
                self.ranges.pop()
            self.ranges.push(str(place))
        self.found.append((name, place, self.stamp()))

    def end(self) -> list[Span]:
        """End the call; return its pieces, which leave no gap, and begin anew."""
        if self.ranges:
            self.ranges.pop()
        moments = [*(stamp for _, _, stamp in self.found), self.stamp()]
        pairs = zip(self.found, moments[:-1], moments[1:], strict=True)
        spans = end_to_end((name, place, self.between(one, other)) for (name, place, _), one, other in pairs)
        self.found.clear()
        return spans


@contextmanager
def probe_torch(source: Source, *, device: str = "auto", precision: str = "fp32") -> Iterator[Probe]:
    """Yield a probe of the checkpoint.

    Raises:
        InputError: it is no encoder classifier whose parts can be found.
        UsageError: a precision that PyTorch runs no checkpoint in.
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

        yield Probe(infer, lambda: calls, "host" if place == "cpu" else "cuda_events")


def on_gpu(device: str) -> Marks:
    """Return marks by CUDA events, which nothing waits for until the call has ended."""
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
    """Let the module mark its parts whenever it runs; return the hooks."""
    names = {part: name for name, part in module.named_modules()}

    def before(part: "nn.Module", name: str, place: Place) -> Any:
        return part.register_forward_pre_hook(lambda *_: marks.mark(name, place))

    def behind(part: "nn.Module", name: str, place: Place) -> Any:
        return part.register_forward_hook(lambda *_: marks.mark(name, place))

    # The outermost first: its mark is then the one that a part which begins with it overrides.
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
