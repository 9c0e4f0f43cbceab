"""The work that a profile measures: one batch from text to logits, whole, and without or with more of each group."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain import graph
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
from toolchain.tensors import Batch, Infer

log = logging.getLogger(__name__)

SHARE = 0.25
"""A part that is repeated is repeated until it takes about that much of a call, so that the difference is seen."""

MOST = 16


@dataclass(frozen=True)
class Load:
    """The texts of one batch, and how they are tokenised."""

    encode: Encode
    texts: list[Text]

    def tokens(self) -> Tokens:
        """Tokenise."""
        return self.encode(self.texts)

    def batch(self, tokens: Tokens) -> Batch:
        """Pad and assemble."""
        return tokens.batch(np.arange(len(self.texts)))

    def work(self, infer: Infer, without: str | None = None) -> Work:
        """Return one call of it, from text to logits, or without what the host does before."""
        tokens = self.tokens()
        batch = self.batch(tokens)
        if without == "tokenise":
            return lambda: infer(self.batch(tokens))
        if without == "copy":
            return lambda: (self.tokens(), infer(batch))
        return lambda: infer(self.batch(self.tokens()))


def whole(target: Target, load: Load, without: str | None = None) -> Opened:
    """Return what opens the work on the subject's backend as it is evaluated, CUDA graphs apart."""

    @contextmanager
    def opened() -> Iterator[Work]:
        choices = {"device": target.device, "precision": target.precision}
        with open_runtime(target.backend, target.model, **choices) as infer:
            yield load.work(infer, without)

    return opened


@contextmanager
def open_variants(target: Target, load: Load, ms: dict[str, float]) -> Iterator[list[Variant]]:
    """Yield a variant for each group that can be taken away or repeated; `ms` is what each takes of a call.

    The host's groups can be left out on any backend, but a GPU's copies cannot. Of a plan nothing can be changed.
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
    return min(MOST, max(1, round(SHARE * sum(ms.values()) / max(ms[group], 1e-6))))


def _graph_without(target: Target, load: Load, group: str, times: int, folder: Path) -> Opened:
    """Write the graph's variant and return what opens it: from a file, as the graph itself is."""
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


def _module_without(target: Target, load: Load, group: str, times: int, folder: Path) -> Opened:
    """Return what opens the checkpoint and changes its modules; they are changed once here, to see that they can be."""
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
