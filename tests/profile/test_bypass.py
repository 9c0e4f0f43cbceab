"""A checkpoint without a part equals its graph without it; a repeated part runs more often; all changes are undone."""

import numpy as np
import pytest

from toolchain import graph
from toolchain.checkpoint.model import find_model
from toolchain.errors import InputError
from toolchain.graph import serialised
from toolchain.profile import bypass
from toolchain.profile.ablate import without
from toolchain.profile.anatomy import find_anatomy
from toolchain.runtimes.ort import open_ort
from toolchain.runtimes.pytorch import forward, open_module


@pytest.fixture
def opened(checkpoints, probe):
    def run(kind, check):
        with open_module(find_model(str(checkpoints[kind])), device="cpu") as module:

            def once():
                return forward(module, probe(kind))

            check(once, find_anatomy(module, once))

    return run


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
@pytest.mark.parametrize("group", ["attention", "feed_forward"])
def test_a_checkpoint_without_a_part_equals_the_graph_without_it(opened, exported, probe, reference, kind, group):
    model = graph.load(exported[kind])
    without(model, group)
    with open_ort(serialised(model), device="cpu") as infer:
        expected = infer(probe(kind))

    def check(once, anatomy):
        with bypass.without(anatomy, group, once):
            np.testing.assert_allclose(once(), expected, atol=1e-5)
        np.testing.assert_allclose(once(), reference(kind, probe(kind)), atol=1e-5)

    opened(kind, check)


@pytest.mark.parametrize("group", ["embedding", "head"])
def test_a_repeated_part_runs_more_often_and_changes_no_logit(opened, probe, reference, group):
    def check(once, anatomy):
        ran = []
        part = anatomy.embedding.LayerNorm if group == "embedding" else anatomy.head[0].dense
        hook = part.register_forward_hook(lambda *_: ran.append(1))
        with bypass.repeated(anatomy, group, 3):
            np.testing.assert_allclose(once(), reference("bert", probe("bert")), atol=1e-5)
        assert len(ran) == 4
        once()
        assert len(ran) == 5
        hook.remove()

    opened("bert", check)


def test_layers_that_normalise_first_are_refused(opened):
    def check(once, anatomy):
        first = [type(layer)(**{**vars(layer), "post": False}) for layer in anatomy.layers]
        changed = type(anatomy)(anatomy.embedding, tuple(first), anatomy.head)
        with pytest.raises(InputError, match="LayerNorms come before"), bypass.without(changed, "attention", once):
            pass

    opened("distilbert", check)
