"""The parts of a model are found by the order of its modules, also if it normalises first."""

import pytest
import torch
from torch import nn

from toolchain.checkpoint.model import find_model, load_model
from toolchain.errors import InputError
from toolchain.profile.anatomy import find_anatomy


def names(module, parts):
    known = {part: name for name, part in module.named_modules()}
    return [known[part] for part in parts]


EXPECTED = {
    "distilbert": (
        "distilbert.embeddings",
        ["attention", "sa_layer_norm"],
        ["ffn", "output_layer_norm"],
        ["pre_classifier", "dropout", "classifier"],
    ),
    "bert": ("bert.embeddings", ["attention"], ["intermediate", "output"], ["bert.pooler", "dropout", "classifier"]),
    "roberta": ("roberta.embeddings", ["attention"], ["intermediate", "output"], ["classifier"]),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_parts_of_three_architectures_are_found(checkpoints, kind):
    module = load_model(find_model(str(checkpoints[kind])))
    found = find_anatomy(module, lambda: module(torch.full((1, 4), 7)))
    embedding, attention, feed_forward, head = EXPECTED[kind]
    assert names(module, [found.embedding]) == [embedding]
    assert names(module, found.head) == head
    assert [layer.post for layer in found.layers] == [True, True]
    assert names(found.layers[1].module, found.layers[1].attention) == attention
    assert names(found.layers[1].module, found.layers[1].feed_forward) == feed_forward


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.mix, self.norm2, self.mlp = nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        x = x + self.mix(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    def __init__(self, block=Block):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.blocks = nn.ModuleList([block(), block()])
        self.out = nn.Linear(4, 2)

    def forward(self, ids):
        x = self.table(ids)
        for block in self.blocks:
            x = block(x)
        return self.out(x[:, 0])


def test_a_layer_that_normalises_first_has_its_border_before_the_second_norm():
    module = Model()
    found = find_anatomy(module, lambda: module(torch.tensor([[1, 2]])))
    layer = found.layers[0]
    assert not layer.post
    assert names(layer.module, [layer.border]) == ["norm2"]
    assert names(layer.module, layer.attention) == ["norm1", "mix"]
    assert names(layer.module, layer.feed_forward) == ["norm2", "mlp"]


def test_a_model_without_encoder_layers_is_refused():
    plain = Model(lambda: nn.Linear(4, 4))
    with pytest.raises(InputError, match="Linear: this layer has 0 LayerNorms"):
        find_anatomy(plain, lambda: plain(torch.tensor([[1]])))
    with pytest.raises(InputError, match="has no list of layers"):
        find_anatomy(nn.Linear(2, 2), lambda: None)
