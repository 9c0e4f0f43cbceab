"""Finds the layers of a model and their feed-forward blocks among its modules, and removes layers or neurons.

No architecture is known by name. The layers are the list of modules of one class that has the length which config.json
gives. The feed-forward block of a layer consists of the linear module that maps some other width back to the model's
hidden size, and of the linear modules that map the hidden size to that width.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LAYERS = "num_hidden_layers"


@dataclass(frozen=True)
class Block:
    """A feed-forward block: the linear modules that map to its inner width, and the one that maps back."""

    ups: "tuple[torch.nn.Linear, ...]"
    down: "torch.nn.Linear"


@dataclass(frozen=True)
class Anatomy:
    """A model from which layers, and neurons of the feed-forward blocks, can be removed.

    `place` is the module name of its list of layers, `blocks` has the feed-forward block of each layer, and `width_key`
    is the key of config.json that sets the inner width of the blocks.
    """

    model: "PreTrainedModel"
    place: str
    blocks: tuple[Block, ...]
    width_key: str

    @property
    def layers(self) -> "list[torch.nn.Module]":
        """The model's layers, in order."""
        return list(self.model.get_submodule(self.place).children())

    @property
    def width(self) -> int:
        """The inner width of the feed-forward blocks."""
        return self.blocks[0].down.in_features

    def changes(self, kept: Sequence[int], width: int) -> dict[str, Any]:  # values of config.json
        """Return the keys of config.json that a cut changes, with their new values.

        The cut leaves the layers at the positions `kept`, with `width` neurons in each feed-forward block.
        """
        config = self.model.config
        name = type(config).attribute_map.get(LAYERS, LAYERS)
        found: dict[str, Any] = {name: len(kept), self.width_key: width}
        for key, value in config.to_dict().items():  # lists with one entry per layer, such as layer_types
            if "layer" in key and isinstance(value, list) and len(value) == len(self.blocks):
                found[key] = [value[at] for at in kept]
        return found

    def stated(self, config: Mapping[str, Any], kept: Sequence[int], width: int) -> dict[str, Any]:  # as in config.json
        """Return `config`, the values of a config.json, updated with the values that `changes` returns.

        If `config` also has such a key under another name (an alias), the value of that name is updated too.
        """
        changes = self.changes(kept, width)
        aliases = type(self.model.config).attribute_map.items()
        return {
            **config,
            **changes,
            **{name: changes[key] for name, key in aliases if name in config and key in changes},
        }

    def is_ordinary(self) -> bool:
        """Return whether a new model with this model's configuration has the same names and shapes of weights."""
        models = self.model, _empty(self.model, {})
        one, other = ({name: one.shape for name, one in model.named_parameters()} for model in models)
        return one == other

    def keep_layers(self, kept: Sequence[int]) -> "Anatomy":
        """Remove all layers but those at the positions `kept` from the model, in place; return its new anatomy."""
        import torch

        changes, layers = self.changes(kept, self.width), self.layers
        parent, _, name = self.place.rpartition(".")
        setattr(self.model.get_submodule(parent), name, torch.nn.ModuleList([layers[at] for at in kept]))
        for key, value in changes.items():
            setattr(self.model.config, key, value)
        return Anatomy(self.model, self.place, tuple(self.blocks[at] for at in kept), self.width_key)

    def keep_neurons(self, kept: "Sequence[torch.Tensor]", means: "Sequence[torch.Tensor]") -> None:
        """Remove inner neurons from each block, in place, and add their mean effect to the bias of the block.

        Args:
            kept: for each layer the indices of the neurons that stay, int64 [new width].
            means: for each layer the mean of each neuron's output, float32 [width]; not used for a block
                without a bias.
        """
        import torch

        for block, stay, mean in zip(self.blocks, kept, means, strict=True):
            down, gone = block.down, torch.ones(len(mean), dtype=torch.bool, device=mean.device)
            gone[stay] = False
            with torch.no_grad():
                if down.bias is not None:
                    down.bias.add_(down.weight[:, gone] @ mean[gone])
                down.weight = torch.nn.Parameter(down.weight[:, stay].contiguous())
                down.in_features = len(stay)
                for up in block.ups:  # in a gated block, one Linear may compute both the gate and its factor
                    rows = torch.cat([stay + start for start in range(0, up.out_features, len(mean))])
                    up.weight, up.out_features = torch.nn.Parameter(up.weight[rows].contiguous()), len(rows)
                    if up.bias is not None:
                        up.bias = torch.nn.Parameter(up.bias[rows])
        setattr(self.model.config, self.width_key, len(kept[0]))


def find_anatomy(model: "PreTrainedModel", folder: Path) -> Anatomy:
    """Return the anatomy of a model; the error message names `folder`.

    Raises:
        InputError: the model has no list of layers, a layer has no feed-forward block, or no key of config.json sets
            the width of the blocks.
    """
    import torch

    count = getattr(model.config, LAYERS, None)
    for name, layers in model.named_modules():
        if isinstance(layers, torch.nn.ModuleList) and len(layers) == count and len({*map(type, layers)}) == 1:
            blocks = tuple(block for layer in layers if (block := _find_block(layer, model.config.hidden_size)))
            found = _width_key(model, name, blocks) if len(blocks) == count else None
            if found and all(map(_alone, blocks, layers, found[1])):
                key, wider = found
                return Anatomy(model, name, tuple(map(_grown, blocks, layers, wider)), key)
    raise InputError(
        f"{folder}: {type(model).__name__} has no feed-forward blocks that shrink can find. It needs a list of equal "
        "layers, each with linear modules to another width and back. Choose a model with layers like BERT's."
    )


def _find_block(layer: "torch.nn.Module", hidden: int) -> Block | None:
    """Return the feed-forward block of a layer, or None if the layer has none or more than one."""
    import torch

    linears = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
    downs = [one for one in linears if one.out_features == hidden and one.in_features != hidden]
    if len(downs) != 1:
        return None
    width = downs[0].in_features
    ups = [one for one in linears if one.in_features == hidden and one.out_features in (width, 2 * width)]
    return Block(tuple(ups), downs[0]) if ups else None


def _alone(block: Block, layer: "torch.nn.Module", wider: "torch.nn.Module") -> bool:
    """Return whether the weights of the block are the only ones whose shapes differ between `layer` and `wider`.

    `wider` is the same layer of a model with wider blocks. MobileBERT's attention would grow too: its width is that of
    the bottleneck.
    """
    sizes = {name: tuple(one.shape) for name, one in wider.named_parameters()}
    own = {id(one) for module in (*block.ups, block.down) for one in module.parameters()}
    return all(id(one) in own or sizes[name] == tuple(one.shape) for name, one in layer.named_parameters())


def _grown(block: Block, layer: "torch.nn.Module", wider: "torch.nn.Module") -> Block:
    """Return the block without the linear modules that have the same shape in `wider`, a layer with wider blocks.

    These modules have the width of the block by coincidence, and serve another purpose.
    """
    sizes = {name: tuple(one.shape) for name, one in wider.named_parameters()}
    same = {id(one) for name, one in layer.named_parameters() if sizes[name] == tuple(one.shape)}
    return Block(tuple(up for up in block.ups if id(up.weight) not in same), block.down)


def _width_key(
    model: "PreTrainedModel", place: str, blocks: tuple[Block, ...]
) -> "tuple[str, list[torch.nn.Module]] | None":
    """Return the key of config.json that sets the inner width of all blocks, and the layers of a wider model.

    The name of the key differs between architectures, so each key whose value equals the width is tried. Return None if
    none of them sets the width. The returned layers are on the meta device and have no data.
    """
    width, hidden = blocks[0].down.in_features, model.config.hidden_size
    # Not equal to the hidden size, because _find_block does not recognise a block of that width.
    wider = 3 * width if 2 * width == hidden else 2 * width
    stated: dict[str, Any] = model.config.to_dict()
    for key in (key for key, value in stated.items() if type(value) is int and value == width):
        layers = [*_empty(model, {key: wider}).get_submodule(place).children()]
        found = [_find_block(layer, hidden) for layer in layers]
        if all(block and block.down.in_features == wider for block in found):
            return key, layers
    return None


def _empty(model: "PreTrainedModel", changes: dict[str, Any]) -> "PreTrainedModel":  # values of config.json
    """Return a model of the same class with `changes` to its configuration, on the meta device and so without data."""
    import torch

    config = copy.deepcopy(model.config)
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.device("meta"):
        made: PreTrainedModel = type(model)(config).eval()
    return made
