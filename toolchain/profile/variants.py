"""The work that a profile measures: a call on one batch, from text to logits, and its variants.

A variant leaves out a group, or runs it several times.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import graph
from toolchain.base.tensors import Batch, Infer
from toolchain.checkpoint.model import Source
from toolchain.checkpoint.tokenize import Encode, Tokens
from toolchain.data.rows import Text
from toolchain.errors import InputError
from toolchain.evaluation.target import Target
from toolchain.profile import ablate, bypass
from toolchain.profile.anatomy import find_anatomy
from toolchain.profile.apportion import Opened, Variant, Work
from toolchain.runtimes import open_runtime
from toolchain.runtimes.pytorch import forward, open_module

log = logging.getLogger(__name__)

# A part is repeated until its repetitions take about this fraction of the time of a call, so that the difference can be
# measured.
SHARE = 0.25

# Largest number of repetitions; each copy of a part makes the graph larger.
MAX_TIMES = 16


@dataclass(frozen=True)
class Workload:
    """The texts of one batch, and the function that tokenises them."""

    encode: Encode
    texts: list[Text]

    def tokens(self) -> Tokens:
        """Return the tokens of the texts."""
        return self.encode(self.texts)

    def batch(self, tokens: Tokens) -> Batch:
        """Return the texts' tokens as one padded batch."""
        return tokens.batch(np.arange(len(self.texts)))

    def work(self, infer: Infer, without: str | None = None) -> Work:
        """Return a function that runs one call, from text to logits.

        `without` leaves out a group of the host: "tokenise", or "copy" (the assembly of the batch).
        """
        tokens = self.tokens()
        batch = self.batch(tokens)
        if without == "tokenise":
            return lambda: infer(self.batch(tokens))
        if without == "copy":
            return lambda: (self.tokens(), infer(batch))
        return lambda: infer(self.batch(self.tokens()))


def whole(target: Target, load: Workload, without: str | None = None) -> Opened:
    """Return a function that opens the target's backend, without CUDA graphs, and yields the call to measure.

    `without` is as in `Workload.work`.
    """

    @contextmanager
    def opened() -> Iterator[Work]:
        choices = {"device": target.device, "precision": target.precision}
        with open_runtime(target.backend, target.model, **choices) as infer:
            yield load.work(infer, without)

    return opened


@contextmanager
def open_variants(target: Target, load: Workload, ms: dict[str, float]) -> Iterator[list[Variant]]:
    """Yield a variant for each group that can be removed or repeated; `ms` is the time of each group in ms per call.

    Groups of the host can be removed on every backend, except for copies to a GPU. Parts of the model can be changed
    only for ONNX Runtime and PyTorch, and not in a TensorRT plan, for example.
    """
    host = ["tokenise", *(["copy"] if target.device == "cpu" else [])]
    found = [Variant(group, -1, whole(target, load, group)) for group in host if group in ms]
    times = {group: -1 for group in ablate.REMOVABLE if group in ms}
    times |= {group: _times(group, ms) for group in ablate.REPEATABLE if group in ms}
    makers: dict[str, Callable[..., Opened]] = {"ort": _graph_without, "torch": _module_without}
    with ExitStack() as stack:
        if target.backend in makers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for group, count in times.items():
                try:
                    found.append(Variant(group, count, makers[target.backend](target, load, group, count, folder)))
                except InputError as error:
                    log.warning("%s", error)
        yield found


def _times(group: str, ms: dict[str, float]) -> int:
    return min(MAX_TIMES, max(1, round(SHARE * sum(ms.values()) / max(ms[group], 1e-6))))


def _graph_without(target: Target, load: Workload, group: str, times: int, folder: Path) -> Opened:
    """Write the changed graph to a file, and return a function that opens it; for `times`, see `Variant`."""
    file = target.model
    assert isinstance(file, Path)
    model = graph.load(file)
    if times < 0:
        ablate.without(model, group)
    else:
        ablate.repeated(model, group, times)
    place = folder / f"{group}.onnx"
    graph.save(model, place)

    @contextmanager
    def opened() -> Iterator[Work]:
        with open_runtime("ort", place, device=target.device) as infer:
            yield load.work(infer)

    return opened


def _module_without(target: Target, load: Workload, group: str, times: int, folder: Path) -> Opened:
    """Return a function that opens the checkpoint and changes its modules; for `times`, see `Variant`.

    The returned function is called once here, so that an InputError for a model that cannot be changed is raised at
    this point.
    """
    source: Any = target.model
    assert isinstance(source, Source)
    first = load.batch(load.tokens())

    @contextmanager
    def opened() -> Iterator[Work]:
        with open_module(source, device=target.device, precision=target.precision) as module:
            anatomy = find_anatomy(module, lambda: forward(module, first))
            changed = (
                bypass.without(anatomy, group, lambda: forward(module, first))
                if times < 0
                else bypass.repeated(anatomy, group, times)
            )
            with changed:
                yield load.work(lambda batch: forward(module, batch))

    with opened():
        return opened
