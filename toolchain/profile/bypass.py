"""Change a PyTorch model so that a part of it is removed or runs several times, as ablate.py does for graphs."""

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
    """Remove attention or the feed-forward part from all layers until the context ends.

    The forward methods of a part's modules are replaced: the module with the LayerNorm returns the residual input, the
    others return zero. `run` runs the model once, to see which modules return a tuple.

    Raises:
        InputError: the LayerNorms come before attention and feed-forward, so no module receives the residual input.
    """
    if not all(layer.post for layer in anatomy.layers):
        raise InputError(
            f"The model's LayerNorms come before attention and feed-forward, so {group} cannot be removed. "
            "Its energy is estimated from its time."
        )
    parts = [layer.attention if group == "attention" else layer.feed_forward for layer in anatomy.layers]
    sizes = _tuple_sizes({part for modules in parts for part in modules}, run)
    forwards: dict[nn.Module, Forward] = {}
    for modules in parts:
        last = [part for part in modules if any(is_norm(one) for one in part.modules())][-1]
        for part in modules:
            forwards[part] = _given(_kept if part is last else _nothing, sizes[part])
    with _replaced(forwards):
        yield


@contextmanager
def repeated(anatomy: Anatomy, group: str, times: int) -> Iterator[None]:
    """Make the embedding or the head run `times` more times per call, until the context ends."""
    modules = (anatomy.embedding,) if group == "embedding" else anatomy.head
    with _replaced({module: _again(module.forward, times) for module in modules}):
        yield


def _kept(*values: Any) -> Any:
    """Return a part's residual input: the first tensor with dimensions among the arguments of a module.

    Outputs of the part's other modules have no dimensions (see `_nothing`).
    """
    import torch

    return next(value for value in values if isinstance(value, torch.Tensor) and value.ndim)


def _nothing(*values: Any) -> Any:
    """Return zero as a tensor without dimensions, which can be added to a tensor of any shape."""
    return _kept(*values).new_zeros(())


def _given(function: Forward, size: int | None) -> Forward:
    """Return a forward method that returns the result of `function`.

    If `size` is given, the method returns a tuple of this length: the result, then None.
    """

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
    """Run the model once; return the length of the tuple that each module returns, or None if it returns a tensor."""
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
        module.forward = forward  # overrides the method of the class for this module only
    try:
        yield
    finally:
        for module in forwards:
            del module.forward  # makes the method of the class visible again
