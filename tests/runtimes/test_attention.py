"""Every attention gives the logits of transformers, for all lengths and paddings."""

import numpy as np
import pytest

from tests.architectures import make
from toolchain.checkpoint.model import find_model
from toolchain.errors import MachineError, UsageError
from toolchain.recipe.tables import ATTENTIONS
from toolchain.runtimes.attention import KERNELS, PADDED
from toolchain.runtimes.pytorch import open_torch

KINDS = ("distilbert", "bert", "roberta")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ATTENTIONS)
def test_it_agrees_with_eager_transformers(kind, name, checkpoints, random_batch, reference):
    source = find_model(str(checkpoints[kind]))
    with open_torch(source, device="cpu", attention=name) as infer:
        for size, length in ((1, 1), (1, 17), (5, 23), (8, 32)):
            batch = random_batch(kind, size, length)
            np.testing.assert_allclose(infer(batch), reference(kind, batch), atol=2e-5)


@pytest.mark.parametrize("name", ["flash", "flex", "packed"])
def test_padding_is_not_computed_and_changes_nothing(name, checkpoints, random_batch, monkeypatch):
    import torch

    batch = random_batch("bert", 6, 30)
    wider = {key: np.pad(array, ((0, 0), (0, 2))) for key, array in batch.items()}
    seen = []
    with open_torch(find_model(str(checkpoints["bert"])), device="cpu", attention=name) as infer:
        plain = torch.nn.functional.linear

        def linear(values, *rest):
            seen.append(values.shape)
            return plain(values, *rest)

        monkeypatch.setattr(torch.nn.functional, "linear", linear)
        found = [infer(batch), infer(wider)]
    np.testing.assert_allclose(*found, atol=1e-6)
    assert max(shape[:-1].numel() for shape in seen) == batch["attention_mask"].sum()


def test_a_row_without_tokens_does_not_change_other_rows(checkpoints, random_batch):
    batch = random_batch("distilbert", 4, 20)
    alone = {key: array[:3] for key, array in batch.items()}
    batch["attention_mask"][3] = 0
    with open_torch(find_model(str(checkpoints["distilbert"])), device="cpu", attention="packed") as infer:
        found = infer(batch)
        np.testing.assert_allclose(found[:3], infer(alone), atol=1e-6)
    assert np.isfinite(found).all()


def test_an_attention_for_engines_is_refused(checkpoints):
    with (
        pytest.raises(UsageError, match="--attention plugin"),
        open_torch(find_model(str(checkpoints["bert"])), device="cpu", attention="plugin"),
    ):
        pass


def test_a_flash_kernel_that_cannot_run_is_an_error_without_fall_back(checkpoints, random_batch, monkeypatch):
    import torch

    def refuse(*arguments, **choices):
        raise RuntimeError("No available kernel. Aborting execution.")

    with open_torch(find_model(str(checkpoints["bert"])), device="cpu", attention="flash") as infer:
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", refuse)
        with pytest.raises(MachineError, match="No available kernel"):
            infer(random_batch("bert", 2, 9))


def test_every_name_has_a_kernel():
    assert {*PADDED, *KERNELS} == set(ATTENTIONS)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["eval", "--attention", "flash"], "only with --backend torch"),
        (["eval", "--attention", "flash", "--backend", "ort"], "cannot be used with --backend ort"),
        (["build", "-m", "demo", "--task", "demo", "--attention", "packed"], "only eval --backend torch takes this"),
    ],
)
def test_it_is_for_eval_on_torch_only(command, message, capsys, tmp_path, monkeypatch):
    from toolchain.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "message"), [("ConvBert", "gives other logits with it"), ("GPT2", "lacks a table")])
def test_a_model_that_attends_in_a_way_of_its_own_is_refused(kind, message, tmp_path):
    source = find_model(str(make(tmp_path / "model", kind)))
    with (
        pytest.raises(UsageError, match=message),
        open_torch(source, device="cpu", attention="packed"),
    ):
        pass
