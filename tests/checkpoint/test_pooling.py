"""Pooling against plain sums, and the folders of sentence-transformers that are read or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from toolchain.checkpoint.pooling import Pooling, choose_pooling, read_modules
from toolchain.errors import InputError

MODULES = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}


def save(folder: Path, pooling: Any = MEAN, modules: list[str] = MODULES, path: str = "") -> Path:
    """Save what sentence-transformers saves beside the encoder."""
    paths = [path, "1_Pooling", "2_Normalize"]
    entries = [{"idx": at, "path": paths[at], "type": kind} for at, kind in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    return folder


def test_the_mean_is_of_real_tokens_and_a_vector_may_have_the_length_one() -> None:
    hidden, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [0] * 5])
    found = Pooling("mean", normalize=False)(hidden, mask)
    torch.testing.assert_close(found[0], hidden[0, :3].mean(0))
    torch.testing.assert_close(found[1], hidden[1].mean(0))
    unit = Pooling("mean", normalize=True)(hidden, mask)
    torch.testing.assert_close(unit[:2], torch.nn.functional.normalize(found[:2]))
    assert unit.isfinite().all()  # also of a row of padding
    torch.testing.assert_close(Pooling("cls", normalize=False)(hidden, mask), hidden[:, 0])


@pytest.mark.parametrize(
    ("pooling", "modules", "expected"),
    [
        (MEAN, MODULES, Pooling("mean", False)),
        (MEAN, [*MODULES, "sentence_transformers.models.Normalize"], Pooling("mean", True)),
        (MEAN | {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, MODULES, Pooling("cls", False)),
        ({"pooling_mode": "cls"}, MODULES, Pooling("cls", False)),
    ],
)
def test_modules_say_how_to_pool(pooling: Any, modules: list[str], expected: Pooling, tmp_path: Path) -> None:
    assert read_modules(save(tmp_path, pooling, modules)) == (tmp_path, expected)


def test_the_encoder_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    assert read_modules(save(tmp_path, path="0_Transformer"))[0] == tmp_path / "0_Transformer"


@pytest.mark.parametrize(
    ("pooling", "modules", "message"),
    [
        (MEAN | {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, MODULES, "pooling is max_tokens"),
        (MEAN | {"pooling_mode_cls_token": True}, MODULES, "pooling is cls_token, mean_tokens"),
        ({}, MODULES, "pooling is none"),
        ([], MODULES, "not a JSON object"),
        (MEAN, [*MODULES, "sentence_transformers.models.Dense"], "its modules are Transformer, Pooling, Dense"),
        (MEAN, MODULES[:1], "its modules are Transformer. Give"),
    ],
)
def test_another_pooling_is_refused(pooling: Any, modules: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_modules(save(tmp_path, pooling, modules))


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "with the prompt 'query'"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is true"),
    ],
)
def test_what_is_done_to_texts_before_the_tokenizer_is_refused(
    file: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(json.dumps(values))
    with pytest.raises(InputError, match=message):
        read_modules(save(tmp_path))


@pytest.mark.parametrize("place", ["../elsewhere", "/etc"])
def test_a_module_outside_of_the_folder_is_refused(place: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "elsewhere").mkdir()
    entries = [{"type": "models.Transformer", "path": ""}, {"type": "models.Pooling", "path": place}]
    (tmp_path / "model/modules.json").write_text(json.dumps(entries))
    with pytest.raises(InputError, match=rf"the path '{place}' of a module leads out of the folder"):
        read_modules(tmp_path / "model")


def test_a_classifier_has_no_pooling_and_two_of_them_must_agree(tmp_path: Path) -> None:
    mean = Pooling("mean", True)
    with pytest.raises(InputError, match="the task has a pooling, but the checkpoint is BertForSequenceClassification"):
        choose_pooling(tmp_path, {"architectures": ["BertForSequenceClassification"]}, mean, None)
    with pytest.raises(InputError, match=r"mode='cls'.*Remove pooling and normalize"):
        choose_pooling(tmp_path, {"architectures": ["BertModel"]}, mean, Pooling("cls", True))
    assert choose_pooling(tmp_path, {"architectures": ["BertModel"]}, mean, None) == mean
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))
    assert read_modules(save(tmp_path)) == (tmp_path, None)
