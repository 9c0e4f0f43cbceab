"""Where a model has its layers and their feed-forward blocks, found from its modules; and how to cut them.

No architecture is named here. The layers are the list of equal modules that is as long as config.json says. The
feed-forward block of a layer is a linear module from another width back to the model's, and those that lead to it.
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
    """A feed-forward block: the linear modules that lead to its inner width, and the one that leads back."""

    ups: "tuple[torch.nn.Linear, ...]"
    down: "torch.nn.Linear"


@dataclass(frozen=True)
class Anatomy:
    """A model that can be cut: the name of its list of layers, the block of each, and the key of their inner width."""

    model: "PreTrainedModel"
    place: str
    blocks: tuple[Block, ...]
    width_key: str

    @property
    def layers(self) -> "list[torch.nn.Module]":
        """The layers, in order."""
        return list(self.model.get_submodule(self.place).children())

    @property
    def width(self) -> int:
        """The inner width of the feed-forward blocks."""
        return self.blocks[0].down.in_features

    def changes(self, kept: Sequence[int], width: int) -> dict[str, Any]:  # values of config.json
        """Return the keys of config.json that differ in a model of the layers `kept`, with feed-forwards of `width`."""
        config = self.model.config
        name = type(config).attribute_map.get(LAYERS, LAYERS)
        found: dict[str, Any] = {name: len(kept), self.width_key: width}
        for key, value in config.to_dict().items():  # such as layer_types
            if "layer" in key and isinstance(value, list) and len(value) == len(self.blocks):
                found[key] = [value[at] for at in kept]
        return found

    def stated(self, config: Mapping[str, Any], kept: Sequence[int], width: int) -> dict[str, Any]:  # of a config.json
        """Return `config`, the values of a config.json, for such a model; a key may also stand there by an alias."""
        changes = self.changes(kept, width)
        aliases = type(self.model.config).attribute_map.items()
        return {
            **config,
            **changes,
            **{name: changes[key] for name, key in aliases if name in config and key in changes},
        }

    def is_ordinary(self) -> bool:
        """Return whether transformers makes a model with the same weights of its configuration."""
        models = self.model, _empty(self.model, {})
        one, other = ({name: one.shape for name, one in model.named_parameters()} for model in models)
        return one == other

    def keep_layers(self, kept: Sequence[int]) -> "Anatomy":
        """Leave the layers `kept` in the model alone, in order; return the model's new anatomy."""
        import torch

        changes, layers = self.changes(kept, self.width), self.layers
        parent, _, name = self.place.rpartition(".")
        setattr(self.model.get_submodule(parent), name, torch.nn.ModuleList([layers[at] for at in kept]))
        for key, value in changes.items():
            setattr(self.model.config, key, value)
        return Anatomy(self.model, self.place, tuple(self.blocks[at] for at in kept), self.width_key)

    def keep_neurons(self, kept: "Sequence[torch.Tensor]", means: "Sequence[torch.Tensor]") -> None:
        """Leave the inner neurons `kept` of each block alone; the others act on by their means, through the bias.

        Args:
            kept: for each layer the indices of the neurons that stay, int64 [new width].
            means: for each layer the mean of each neuron's output, float32 [width].
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
                for up in block.ups:  # of a gated block, one may have both halves
                    rows = torch.cat([stay + start for start in range(0, up.out_features, len(mean))])
                    up.weight, up.out_features = torch.nn.Parameter(up.weight[rows].contiguous()), len(rows)
                    if up.bias is not None:
                        up.bias = torch.nn.Parameter(up.bias[rows])
        setattr(self.model.config, self.width_key, len(kept[0]))


def find_anatomy(model: "PreTrainedModel", folder: Path) -> Anatomy:
    """Return the anatomy of a model; `folder` is for the message.

    Raises:
        InputError: there is no such list of layers, no such block in one of them, or no key for its width.
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
        f"{folder}: {type(model).__name__} has no feed-forward that can be found: layers one after the other, each "
        "with linear modules to another width and back. Choose a model like BERT."
    )


def _find_block(layer: "torch.nn.Module", hidden: int) -> Block | None:
    """Return the feed-forward block of a layer; None if there is none, or more than one."""
    import torch

    linears = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
    downs = [one for one in linears if one.out_features == hidden and one.in_features != hidden]
    if len(downs) != 1:
        return None
    width = downs[0].in_features
    ups = [one for one in linears if one.in_features == hidden and one.out_features in (width, 2 * width)]
    return Block(tuple(ups), downs[0]) if ups else None


def _alone(block: Block, layer: "torch.nn.Module", wider: "torch.nn.Module") -> bool:
    """Return whether only the block has other sizes in `wider`; MobileBERT's attention is as wide as its bottleneck."""
    sizes = {name: tuple(one.shape) for name, one in wider.named_parameters()}
    own = {id(one) for module in (*block.ups, block.down) for one in module.parameters()}
    return all(id(one) in own or sizes[name] == tuple(one.shape) for name, one in layer.named_parameters())


def _grown(block: Block, layer: "torch.nn.Module", wider: "torch.nn.Module") -> Block:
    """Return the block of a layer without modules of other use that are as wide, which `wider` has in the same size."""
    sizes = {name: tuple(one.shape) for name, one in wider.named_parameters()}
    same = {id(one) for name, one in layer.named_parameters() if sizes[name] == tuple(one.shape)}
    return Block(tuple(up for up in block.ups if id(up.weight) not in same), block.down)


def _width_key(
    model: "PreTrainedModel", place: str, blocks: tuple[Block, ...]
) -> "tuple[str, list[torch.nn.Module]] | None":
    """Return the key of config.json that sets the inner width of all blocks, and wider layers.

    Each number of that size is tried, because the names differ between architectures. None if none of them is it.
    """
    width, hidden = blocks[0].down.in_features, model.config.hidden_size
    wider = 3 * width if 2 * width == hidden else 2 * width  # a block as wide as the model cannot be found
    stated: dict[str, Any] = model.config.to_dict()
    for key in (key for key, value in stated.items() if type(value) is int and value == width):
        layers = [*_empty(model, {key: wider}).get_submodule(place).children()]
        found = [_find_block(layer, hidden) for layer in layers]
        if all(block and block.down.in_features == wider for block in found):
            return key, layers
    return None


def _empty(model: "PreTrainedModel", changes: dict[str, Any]) -> "PreTrainedModel":  # values of config.json
    """Return a model of the same class, on the meta device, whose configuration has `changes`."""
    import torch

    config = copy.deepcopy(model.config)
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.device("meta"):
        made: PreTrainedModel = type(model)(config).eval()
    return made
