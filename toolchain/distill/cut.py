"""The cut: which layers and which neurons of the feed-forward blocks matter least to the logits.

The importance of a layer is measured: it is how far the logits move without the layer. That of a neuron is estimated by
a first-order Taylor expansion (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"): the squared
distance that the logits move when the neuron gives its mean. Random directions of the logits, one a row, stand in the
place of a loss, so no row needs a label. `anatomy.py` removes the weights.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.base.progress import Advance, bar
from toolchain.checkpoint.facts import outputs
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Tokens, batches
from toolchain.distill.anatomy import Anatomy, find_anatomy
from toolchain.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# Widths are multiples of this: the tiles of a GPU's INT8 GEMMs, and the least that is left.
TILE = 64

# Positions of a batch. Gradients of activations need more memory than a pass.
MAX_SLOTS = 2048

# Rows by which layers are tried and shapes are compared, each of which takes a pass; and those that check a cut.
TRIED_ROWS, PROBE_ROWS = 256, 8

# Logits of a model whose cut differs from the same model with the neurons held at their means by more than this share
# of the largest logit were cut in the wrong place.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Shape:
    """How much is left of a model: its number of layers, and the width of its feed-forward blocks."""

    layers: int
    width: int


@dataclass(frozen=True)
class Cut:
    """A model that was cut: its anatomy now, the layers that are left, and the neurons of each that are."""

    anatomy: Anatomy
    layers: tuple[int, ...]
    neurons: list[list[int]]


def cut(
    model: "PreTrainedModel", shapes: Sequence[Shape], tokens: Tokens, *, seed: int, centred: bool, folder: Path
) -> Cut:
    """Return a copy of a model, cut to that one of `shapes` whose logits are nearest to the model's.

    Args:
        model: the model, which is not changed.
        shapes: at least one.
        tokens: rows to measure importance on.
        seed: of the random directions of the logits.
        centred: whether what is added to all logits of a row does not count, as with a softmax.
        folder: the checkpoint's, for messages.

    Raises:
        InputError: see `find_anatomy` and `cut_neurons`.
    """
    anatomy, some = find_anatomy(model, folder), tokens.take(_first(tokens, TRIED_ROWS))
    kept = choose_layers(anatomy, some, min(shape.layers for shape in shapes), centred=centred)
    wanted, best = _logits(model, some, centred=centred), None
    for shape in shapes:
        made = find_anatomy(copy.deepcopy(model), folder).keep_layers(kept[shape.layers])
        neurons = cut_neurons(made, tokens, shape.width, seed=seed, centred=centred, folder=folder)
        moved = float((_logits(made.model, some, centred=centred) - wanted).square().mean())
        if best is None or moved < best[0]:
            best = moved, Cut(made, kept[shape.layers], neurons)
    assert best
    return best[1]


def shape_of(anatomy: Anatomy, *, ffn: float | None, layers: int | None) -> Shape:
    """Return the shape that --ffn, a share of the width, and --layers, a number, ask for.

    Raises:
        UsageError: they are out of range, or ask for no cut.
    """
    have, width = len(anatomy.blocks), anatomy.width
    if layers is not None and layers > have:
        raise UsageError(f"--layers {layers}: the model has {have}. Give 1 to {have}.")
    wanted = width if ffn is None else round(ffn * width / TILE) * TILE
    if ffn is not None and wanted < TILE:
        raise UsageError(f"--ffn {ffn:g}: {ffn * width:.0f} of {width:,} wide; the least is {TILE}. Give more.")
    if min(wanted, width) == width and layers in (None, have):
        raise UsageError(
            f"--ffn, --layers: nothing is cut from {have} layers with feed-forwards of {width:,}. "
            "Give less, or a --target-speed above 1."
        )
    return Shape(have if layers is None else layers, min(wanted, width))


@dataclass(frozen=True)
class Work:
    """The multiply-accumulates of a row in the matrix products of a model: of all, and of a layer and its feed-forward.

    `shape` is that of the model.
    """

    shape: Shape
    total: int
    layer: int
    ffn: int

    def share(self, shape: Shape) -> float:
        """Return the share of them that a model of another shape has."""
        dropped = (self.shape.layers - shape.layers) * self.layer
        narrower = shape.layers * self.ffn * (1 - shape.width / self.shape.width)
        return (self.total - dropped - narrower) / self.total


def count_work(anatomy: Anatomy, tokens: int) -> Work:
    """Return the work of a model for a row of a number of tokens, as PyTorch counts it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = copy.deepcopy(anatomy.model)
    model.set_attn_implementation("eager")  # so that attention consists of products that are counted
    ids = torch.ones(1, tokens, dtype=torch.long, device=model.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    counts = {name: sum(of.values()) // 2 for name, of in counter.get_flop_counts().items()}
    layer = next(count for name, count in counts.items() if name.endswith(f".{anatomy.place}.0"))
    block = anatomy.blocks[0]
    ffn = tokens * sum(linear.weight.numel() for linear in (*block.ups, block.down))
    return Work(Shape(len(anatomy.blocks), anatomy.width), counts["Global"], layer, ffn)


def shapes_for_speed(work: Work, speed: float) -> list[Shape]:
    """Return for each number of layers, the most first, the widest shape that has `speed` times less work.

    Raises:
        UsageError: no shape has so little.
    """
    have, width = work.shape.layers, work.shape.width
    widths = sorted({width, *range(TILE, width, TILE)}, reverse=True)
    found: list[Shape] = []
    for layers in range(have, 0, -1):
        fitting = [wide for wide in widths if work.share(Shape(layers, wide)) * speed <= 1]
        found += [Shape(layers, wide) for wide in fitting[:1]]
        if width in fitting:
            break
    if not found:
        most = 1 / work.share(Shape(1, TILE))
        raise UsageError(f"--target-speed {speed:g}: one layer with {TILE} neurons reaches {most:.1f}. Give less.")
    return found


def choose_layers(anatomy: Anatomy, tokens: Tokens, least: int, *, centred: bool) -> dict[int, tuple[int, ...]]:
    """Return for each number of layers down to `least` which are left: one after the other goes, whichever moves least.

    The model is as before when this returns. With `centred`, what is added to all logits of a row does not count.

    Raises:
        InputError: the weights of each layer have names or shapes of their own.
    """
    have = len(anatomy.blocks)
    kept = tuple(range(have))
    found = {have: kept}
    trials = sum(range(least + 1, have + 1))
    with bar(trials, "trying layers") as advance:
        wanted = _logits(anatomy.model, tokens, centred=centred)
        while len(kept) > least:
            moved = {}
            for at in kept:
                left = tuple(one for one in kept if one != at)
                with _only(anatomy, left):
                    if anatomy.is_ordinary():  # the first layer of some models lacks a weight that others have
                        moved[left] = float((_logits(anatomy.model, tokens, centred=centred) - wanted).square().mean())
                advance()
            if not moved:
                raise InputError(
                    f"--layers {least}: no layer of {type(anatomy.model).__name__} can take the place of another. "
                    "Leave it out, and give --ffn."
                )
            kept = min(moved, key=moved.__getitem__)
            found[len(kept)] = kept
    return found


@contextmanager
def _only(anatomy: Anatomy, kept: Sequence[int]) -> Iterator[None]:
    """Run the model with the layers `kept` alone while the body runs."""
    parent, _, name = anatomy.place.rpartition(".")
    place, layers = anatomy.model.get_submodule(parent), anatomy.model.get_submodule(anatomy.place)
    before = {key: getattr(anatomy.model.config, key) for key in anatomy.changes(kept, anatomy.width)}
    anatomy.keep_layers(kept)
    try:
        yield
    finally:
        setattr(place, name, layers)
        for key, value in before.items():
            setattr(anatomy.model.config, key, value)


def cut_neurons(
    anatomy: Anatomy, tokens: Tokens, width: int, *, seed: int, centred: bool, folder: Path
) -> list[list[int]]:
    """Leave in each feed-forward block the `width` neurons of most importance; return their indices.

    Raises:
        InputError: the model computes something else than was meant; `folder` is for the message.
    """
    import torch

    if width == anatomy.width:
        return [list(range(width)) for _ in anatomy.blocks]
    with bar(2 * len(tokens), "measuring neurons", unit="rows") as advance:
        means = _means(anatomy, tokens, advance)
        scores = _scores(anatomy, tokens, means, advance, seed=seed, centred=centred)
    kept = [torch.topk(score, width).indices.sort().values for score in scores]
    probe = tokens.take(_first(tokens, PROBE_ROWS))
    with _held(anatomy, kept, means):
        wanted = _logits(anatomy.model, probe, centred=False)
    anatomy.keep_neurons(kept, means)
    found = _logits(anatomy.model, probe, centred=False)
    if found.shape != wanted.shape or (found - wanted).abs().max() > TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise InputError(
            f"{folder}: the feed-forward of {type(anatomy.model).__name__} does more than lead to another width and "
            "back, so it cannot be cut. Choose a model like BERT."
        )
    return [one.tolist() for one in kept]


def _first(tokens: Tokens, count: int) -> Indices:
    return np.arange(min(count, len(tokens)))


@contextmanager
def _held(anatomy: Anatomy, kept: "Sequence[torch.Tensor]", means: "Sequence[torch.Tensor]") -> Iterator[None]:
    """Hold all neurons but `kept` at their means while the body runs; at zero where there is no bias for the means."""
    import torch

    def hook(stay: torch.Tensor, mean: torch.Tensor) -> Any:
        left = torch.zeros(len(mean), dtype=torch.bool, device=mean.device)
        left[stay] = True
        return lambda _, given: (torch.where(left, given[0], mean),)

    handles = []
    for block, stay, mean in zip(anatomy.blocks, kept, means, strict=True):
        value = mean if block.down.bias is not None else torch.zeros_like(mean)
        handles.append(block.down.register_forward_pre_hook(hook(stay, value)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _inner(anatomy: Anatomy) -> "Iterator[list[torch.Tensor]]":
    """Yield a list that gets the inner activations of each block, in order, when the model runs."""
    found: list[torch.Tensor] = []
    handles = [
        block.down.register_forward_pre_hook(lambda _, given: found.append(given[0])) for block in anatomy.blocks
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _means(anatomy: Anatomy, tokens: Tokens, advance: Advance) -> "list[torch.Tensor]":
    """Return the mean of each neuron over all real positions, float32 [width] for each block."""
    import torch

    sums = [torch.zeros(anatomy.width, dtype=torch.float64, device=anatomy.model.device) for _ in anatomy.blocks]
    count = 0
    with _inner(anatomy) as inner, torch.no_grad():
        for batch in _batches(anatomy.model, tokens, advance):
            inner.clear()
            outputs(anatomy.model, batch)
            real = batch["attention_mask"].bool()
            count += int(real.sum())
            for total, states in zip(sums, inner, strict=True):
                total += states[real].double().sum(dim=0)
    return [(total / count).float() for total in sums]


def _scores(
    anatomy: Anatomy,
    tokens: Tokens,
    means: "Sequence[torch.Tensor]",
    advance: Advance,
    *,
    seed: int,
    centred: bool,
) -> "list[torch.Tensor]":
    """Return the importance of each neuron: the squared distance that the logits move without it, float64 [width]."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    scores = [torch.zeros(anatomy.width, dtype=torch.float64, device=anatomy.model.device) for _ in anatomy.blocks]
    with _inner(anatomy) as inner, torch.enable_grad():
        for batch in _batches(anatomy.model, tokens, advance):
            inner.clear()
            logits = _centred(outputs(anatomy.model, batch), centred=centred)
            direction = torch.randn(logits.shape, generator=generator).to(logits.device)
            slopes = torch.autograd.grad((logits * direction).sum(), inner)
            for score, mean, states, slope in zip(scores, means, inner, slopes, strict=True):
                # A row's neuron is held at its mean at all positions at once.
                moved = ((states.detach() - mean) * slope).sum(dim=1)
                score += moved.double().square().sum(dim=0)
    return scores


def _logits(model: "PreTrainedModel", tokens: Tokens, *, centred: bool) -> "torch.Tensor":
    """Return the logits of all rows one after the other; tokens of all rows are rows."""
    import torch

    with torch.no_grad():
        found = [_centred(outputs(model, batch), centred=centred) for batch in _batches(model, tokens)]
    return torch.cat([logits.flatten(0, -2) for logits in found])


def _centred(logits: "torch.Tensor", *, centred: bool) -> "torch.Tensor":
    return logits - logits.mean(dim=-1, keepdim=True) if centred else logits


def _batches(
    model: "PreTrainedModel", tokens: Tokens, advance: Advance = lambda count=1: None
) -> "Iterator[Mapping[str, torch.Tensor]]":
    import torch

    for rows in batches(tokens, max_slots=MAX_SLOTS):
        batch = tokens.batch(rows)
        yield {name: torch.from_numpy(array).long().to(model.device) for name, array in batch.items()}
        advance(len(rows))
