"""Find the parts of any encoder in PyTorch by the order in which its modules run, without knowing its architecture.

The encoder layers are the ModuleList of a single class that has the most parameters. The embedding is the module beside
it that contains embedding tables, and the head runs after the layers. Within a layer, LayerNorms separate attention and
the feed-forward part.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Layer:
    """One encoder layer.

    `border`: the LayerNorm between attention and the feed-forward part.
    `post`: whether attention ends with that LayerNorm, as in BERT; if not, the feed-forward part begins with it.
    `attention`, `feed_forward`: the direct child modules, LayerNorms included, in the order in which they run.
    """

    module: "nn.Module"
    border: "nn.Module"
    post: bool
    attention: tuple["nn.Module", ...]
    feed_forward: tuple["nn.Module", ...]


@dataclass(frozen=True)
class Anatomy:
    """The parts of an encoder classifier: the embedding, the encoder layers in order, and the modules of the head."""

    embedding: "nn.Module"
    layers: tuple[Layer, ...]
    head: tuple["nn.Module", ...]


def find_anatomy(module: "nn.Module", run: Callable[[], Any]) -> Anatomy:
    """Return the parts of a classifier; `run` runs it once, to see in which order its modules run.

    Raises:
        InputError: the model lacks a list of layers with two LayerNorms each, or embedding tables.
    """
    stack = _stack(module)
    with _recorded_order(module) as order:
        run()
    around = {one for one in module.modules() if stack in one.modules()}
    tops = [one for one in module.modules() if one not in around and _parent(module, one) in around - {stack}]
    last = max(order.index(layer) for layer in stack.children())
    return Anatomy(
        embedding=_embedding(tops),
        layers=tuple(_layer(layer, order) for layer in stack.children()),
        head=tuple(one for one in order if one in tops and order.index(one) > last),
    )


@contextmanager
def _recorded_order(module: "nn.Module") -> Iterator[list["nn.Module"]]:
    """Yield a list that is filled at the end of the context: the modules that ran, in the order in which they ended."""
    order: dict[nn.Module, None] = {}
    hooks = [one.register_forward_hook(lambda one, *_: order.setdefault(one)) for one in module.modules()]
    found: list[nn.Module] = []
    try:
        yield found
    finally:
        found.extend(order)
        for hook in hooks:
            hook.remove()


def _stack(module: "nn.Module") -> "nn.Module":
    from torch import nn

    lists = [one for one in module.modules() if isinstance(one, nn.ModuleList) and len(set(map(type, one))) == 1]
    if not lists:
        raise InputError(
            f"{type(module).__name__}: the model has no list of layers. Profile its graph with --backend ort."
        )
    return max(lists, key=_size)


def _size(module: "nn.Module") -> int:
    return sum(weight.numel() for weight in module.parameters())


def _parent(root: "nn.Module", module: "nn.Module") -> "nn.Module | None":
    return next((one for one in root.modules() if any(child is module for child in one.children())), None)


def _embedding(tops: list["nn.Module"]) -> "nn.Module":
    from torch import nn

    for one in tops:
        if any(isinstance(part, nn.Embedding) for part in one.modules()):
            return one
    raise InputError("The checkpoint has no embedding tables. Profile its graph with --backend ort.")


def _layer(layer: "nn.Module", order: list["nn.Module"]) -> Layer:
    leaves = [one for one in order if one in set(layer.modules()) and not list(one.children()) and _has_weights(one)]
    norms = [one for one in leaves if is_norm(one)]
    if len(norms) < 2:
        raise InputError(
            f"{type(layer).__name__}: this layer has {len(norms)} LayerNorms, and a profile needs 2. "
            "Profile its graph with --backend ort."
        )
    post = not is_norm(leaves[0])
    border = norms[0] if post else norms[1]
    parts = [one for one in order if one in set(layer.children())]
    cut = next(index for index, one in enumerate(parts) if border in one.modules()) + post
    return Layer(layer, border, post, tuple(parts[:cut]), tuple(parts[cut:]))


def _has_weights(module: "nn.Module") -> bool:
    """Return whether a module without children has weights; dropout and activations have none."""
    return any(True for _ in module.parameters())


def is_norm(module: "nn.Module") -> bool:
    """Return whether a module is a LayerNorm or similar, by its class name: some models define their own class."""
    return type(module).__name__.endswith("Norm")
