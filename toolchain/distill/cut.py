"""Chooses the layers and the neurons of feed-forward blocks that matter least to the logits, and cuts a model by them.

The importance of a layer is measured: it is how far the logits move without the layer. The importance of a neuron is
estimated by a first-order Taylor expansion (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning"):
it is the squared distance that the logits move when the neuron's output is replaced by its mean. Gradients are taken of
the logits along one random direction for each row instead of a loss, so no row needs a label. `anatomy.py` removes the
weights.
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

# Neurons. The new width of feed-forward blocks is a multiple of this and at least this, because a GPU's INT8 GEMMs work
# on tiles of this size.
TILE = 64

# Most positions of a batch, padding included. The limit is low because gradients of activations need more memory than
# inference does.
MAX_SLOTS = 2048

# TRIED_ROWS: rows on which the removal of layers is tried and sizes are compared. It is small because each try runs all
# of them. PROBE_ROWS: rows on which a finished cut is checked.
TRIED_ROWS, PROBE_ROWS = 256, 8

# Largest difference between the logits of the cut model and of the whole model with the removed neurons fixed at their
# means, as a fraction of the largest logit. A larger difference means that the wrong weights were removed.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Shape:
    """The size of a model, whole or cut: its number of layers, and the inner width of its feed-forward blocks."""

    layers: int
    width: int


@dataclass(frozen=True)
class Cut:
    """A model after layers and neurons were removed from it.

    `anatomy` describes it. `layers` are the positions of the remaining layers in the original model, and `neurons` has
    the positions of the remaining neurons for each of these layers.
    """

    anatomy: Anatomy
    layers: tuple[int, ...]
    neurons: list[list[int]]


def cut(
    model: "PreTrainedModel", shapes: Sequence[Shape], tokens: Tokens, *, seed: int, centred: bool, folder: Path
) -> Cut:
    """Return a copy of a model, cut to one of `shapes`: the one that keeps the logits nearest to the original's.

    Args:
        model: the model, which is not changed.
        shapes: the sizes to try, at least one.
        tokens: rows to measure importance on.
        seed: seed of the random directions of the logits.
        centred: whether to ignore a constant that is added to all logits of a row, as a softmax does.
        folder: the checkpoint's folder, for error messages.

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
    """Return the size that --ffn (fraction of the feed-forward width) and --layers (number of layers) ask for.

    None leaves the width, or the number of layers, as it is.

    Raises:
        UsageError: a value is out of range, or nothing would be cut.
    """
    have, width = len(anatomy.blocks), anatomy.width
    if layers is not None and layers > have:
        raise UsageError(f"--layers {layers}: the model has only {have} layers. Give 1 to {have}.")
    wanted = width if ffn is None else round(ffn * width / TILE) * TILE
    if ffn is not None and wanted < TILE:
        raise UsageError(
            f"--ffn {ffn:g}: {ffn * width:.0f} of {width:,} neurons would be left in each feed-forward block, and at "
            f"least {TILE} are needed. Give a larger fraction."
        )
    if min(wanted, width) == width and layers in (None, have):
        raise UsageError(
            f"--ffn, --layers: nothing would be cut, because all {have} layers and all {width:,} neurons of each "
            "feed-forward block would be left. Give smaller values, or a --target-speed above 1."
        )
    return Shape(have if layers is None else layers, min(wanted, width))


@dataclass(frozen=True)
class Work:
    """The multiply-accumulates of a model's matrix products, for one row.

    They are counted for the whole model (`total`), for one layer, and for the feed-forward block of one layer (`ffn`).
    `shape` is the size of the model.
    """

    shape: Shape
    total: int
    layer: int
    ffn: int

    def share(self, shape: Shape) -> float:
        """Return the fraction of the multiply-accumulates that is left when the model is cut to `shape`."""
        dropped = (self.shape.layers - shape.layers) * self.layer
        narrower = shape.layers * self.ffn * (1 - shape.width / self.shape.width)
        return (self.total - dropped - narrower) / self.total


def count_work(anatomy: Anatomy, tokens: int) -> Work:
    """Return the multiply-accumulates of a model for one row of `tokens` tokens, counted by PyTorch."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = copy.deepcopy(anatomy.model)
    model.set_attn_implementation("eager")  # computes attention with GEMMs, which the counter counts
    ids = torch.ones(1, tokens, dtype=torch.long, device=model.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    counts = {name: sum(of.values()) // 2 for name, of in counter.get_flop_counts().items()}
    layer = next(count for name, count in counts.items() if name.endswith(f".{anatomy.place}.0"))
    block = anatomy.blocks[0]
    ffn = tokens * sum(linear.weight.numel() for linear in (*block.ups, block.down))
    return Work(Shape(len(anatomy.blocks), anatomy.width), counts["Global"], layer, ffn)


def shapes_for_speed(work: Work, speed: float) -> list[Shape]:
    """Return the sizes whose work is at most 1 / `speed` of the model's: for each number of layers, the widest one.

    Sizes with the most layers come first. The list ends at the first size whose blocks keep their full width.

    Raises:
        UsageError: even the smallest size has more work.
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
        raise UsageError(
            f"--target-speed {speed:g}: even a single layer with {TILE} feed-forward neurons only does {most:.1f} "
            "times fewer multiplications. Give a smaller number."
        )
    return found


def choose_layers(anatomy: Anatomy, tokens: Tokens, least: int, *, centred: bool) -> dict[int, tuple[int, ...]]:
    """Return, for each number of layers down to `least`, the positions of the layers to keep.

    Layers are left out one at a time: each time the one whose removal moves the logits least. The model is unchanged
    when this returns. `centred` ignores a constant that is added to all logits of a row.

    Raises:
        InputError: no layer can be left out, because the layers differ in the names or shapes of their weights.
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
                    if anatomy.is_ordinary():  # in some models the first layer lacks a weight of the other layers
                        moved[left] = float((_logits(anatomy.model, tokens, centred=centred) - wanted).square().mean())
                advance()
            if not moved:
                raise InputError(
                    f"--layers {least}: no layer of {type(anatomy.model).__name__} can be removed, because its layers "
                    "have weights of different names or shapes. Give --ffn alone."
                )
            kept = min(moved, key=moved.__getitem__)
            found[len(kept)] = kept
    return found


@contextmanager
def _only(anatomy: Anatomy, kept: Sequence[int]) -> Iterator[None]:
    """Leave only the layers `kept` in the model until the context ends."""
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
    """Remove all but the `width` most important neurons of each feed-forward block; return the indices of those kept.

    Raises:
        InputError: without the neurons, the model computes something else than with the neurons held at their means.
            The message names `folder`.
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
            f"{folder}: the feed-forward blocks of {type(anatomy.model).__name__} cannot be cut, because they do more "
            "than map to another width and back. Choose a model with layers like BERT's."
        )
    return [one.tolist() for one in kept]


def _first(tokens: Tokens, count: int) -> Indices:
    return np.arange(min(count, len(tokens)))


@contextmanager
def _held(anatomy: Anatomy, kept: "Sequence[torch.Tensor]", means: "Sequence[torch.Tensor]") -> Iterator[None]:
    """Replace the outputs of all neurons but `kept` by their means until the context ends.

    In a block without a bias they are replaced by zero, because a cut cannot add their means to a bias there.
    """
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
    """Yield a list to which each run of the model appends the inner activations of every block, in order."""
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
    """Return the mean output of each neuron over all positions that are not padded, float32 [width] for each block."""
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
    """Return the importance of each neuron, float64 [width] for each block.

    It is an estimate of the squared distance that the logits move when the neuron is held at its mean.
    """
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
                # A removed neuron is replaced by its mean at all positions of a row, so the effects at the positions
                # are added.
                moved = ((states.detach() - mean) * slope).sum(dim=1)
                score += moved.double().square().sum(dim=0)
    return scores


def _logits(model: "PreTrainedModel", tokens: Tokens, *, centred: bool) -> "torch.Tensor":
    """Return the logits of all batches, [rows, outputs]. A token classifier gives one row per token."""
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
