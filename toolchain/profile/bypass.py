"""A PyTorch model without a part of its layers, or with a part that runs several times: what `ablate` is for graphs."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from toolchain.errors import InputError
from toolchain.profile.anatomy import Anatomy, is_norm

if TYPE_CHECKING:
    from torch import nn

Forward = Callable[..., Any]


@contextmanager
def without(anatomy: Anatomy, group: str, run: Callable[[], Any]) -> Iterator[None]:
    """Take attention or the feed-forward part out of every layer until the context is left.

    A part's modules are replaced: the one that holds its LayerNorm gives what it was to be added to, the others give
    zero. `run` runs the model once, to see what the modules give.

    Raises:
        InputError: the LayerNorms come before their parts, so a part's own input is no residual that can stand for it.
    """
    if not all(layer.post for layer in anatomy.layers):
        raise InputError("the LayerNorms come before their parts. Its parts are told apart by time alone.")
    parts = [layer.attention if group == "attention" else layer.feed_forward for layer in anatomy.layers]
    sizes = _tuple_sizes({part for modules in parts for part in modules}, run)
    forwards: dict[nn.Module, Forward] = {}
    for modules in parts:
        holder = [part for part in modules if any(is_norm(one) for one in part.modules())][-1]
        for part in modules:
            forwards[part] = _given(_kept if part is holder else _nothing, sizes[part])
    with _replaced(forwards):
        yield


@contextmanager
def repeated(anatomy: Anatomy, group: str, times: int) -> Iterator[None]:
    """Let the embedding or the head run `times` more until the context is left."""
    modules = (anatomy.embedding,) if group == "embedding" else anatomy.head
    with _replaced({module: _again(module.forward, times) for module in modules}):
        yield


def _kept(*values: Any) -> Any:
    """Return the first tensor with dimensions: what the part was to be added to."""
    import torch

    return next(value for value in values if isinstance(value, torch.Tensor) and value.ndim)


def _nothing(*values: Any) -> Any:
    """Return zero, which a sum takes whatever its shape."""
    return _kept(*values).new_zeros(())


def _given(function: Forward, size: int | None) -> Forward:
    """Return a forward that gives what `function` does of its arguments; with `size`, as the first of so many."""

    def forward(*values: Any, **named: Any) -> Any:
        found = function(*values, *named.values())
        return found if size is None else (found, *[None] * (size - 1))

    return forward


def _again(original: Forward, times: int) -> Forward:
    def forward(*values: Any, **named: Any) -> Any:
        for _ in range(times):
            original(*values, **named)
        return original(*values, **named)

    return forward


def _tuple_sizes(modules: Collection["nn.Module"], run: Callable[[], Any]) -> dict["nn.Module", int | None]:
    """Return how many values each module gives; None of one that gives a tensor."""
    sizes: dict[nn.Module, int | None] = {}

    def look(module: "nn.Module", _: Any, output: Any) -> None:
        sizes[module] = len(output) if isinstance(output, tuple) else None

    hooks = [module.register_forward_hook(look) for module in modules]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


@contextmanager
def _replaced(forwards: dict["nn.Module", Forward]) -> Iterator[None]:
    for module, forward in forwards.items():
        module.forward = forward  # of this one object
    try:
        yield
    finally:
        for module in forwards:
            del module.forward  # the class has its own
