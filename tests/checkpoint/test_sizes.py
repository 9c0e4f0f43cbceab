"""A config.json whose sizes its weights cannot have is refused before memory or time is spent on it."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from tests.architectures import edit, make
from toolchain.checkpoint.model import find_model, load_model, parse_config
from toolchain.checkpoint.sizes import LISTS, check_values
from toolchain.errors import InputError

SIZES = ("hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings", "type_vocab_size")
# More than a test of this file may take, in bytes; the absurd models would take terabytes.
MEMORY = 2**30


def refused(folder: Path, match: str) -> None:
    """Assert that a checkpoint is refused, and that this takes no memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=match) as found:
        load_model(find_model(str(folder)))
    assert "\n" not in str(found.value)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("sizes") / "model", "Bert")


@pytest.fixture
def edited(bert: Path) -> Any:
    """Return a function that changes keys of config.json for one test."""
    file, stood = bert / "config.json", (bert / "config.json").read_text()
    yield lambda **changes: edit(bert, **changes)
    file.write_text(stood)


@pytest.mark.parametrize("value", [10**7, 10**12, 2**63 - 2, 10**30, 10**4000])
@pytest.mark.parametrize("key", SIZES)
def test_a_size_beyond_the_weights_is_refused_by_its_name(edited: Any, key: str, value: int) -> None:
    refused(edited(**{key: value}), rf"config\.json.*: .*{key} is {str(value)[:40]}.*Get the checkpoint again")


@pytest.mark.parametrize("value", [3, 100, 999, 1001, 10**5, 10**30])
def test_more_layers_than_the_weights_have_are_refused(edited: Any, value: int) -> None:
    folder = edited(num_hidden_layers=value, id2label=None, label2id=None)
    refused(folder, rf"config\.json.*num_hidden_layers is {value}" if value > 3 else r"lacks \d+ weights")


@pytest.mark.parametrize(("kind", "key"), [("DistilBert", "n_layers"), ("ModernBert", "num_hidden_layers")])
def test_a_list_of_layers_is_not_begun(kind: str, key: str, tmp_path: Path) -> None:
    refused(edit(make(tmp_path / "model", kind), **{key: 10**12}), rf"{key} is 10+, but at most 1,000 is allowed")


def test_names_of_labels_without_end_are_not_begun(edited: Any) -> None:
    refused(edited(num_labels=10**12, id2label=None, label2id=None), "num_labels is 10+, but at most 1,000,000 is")


def test_a_torn_file_of_weights_is_named_and_not_the_sizes(bert: Path, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "Bert")
    (folder / "model.safetensors").write_bytes((bert / "model.safetensors").read_bytes()[:1000])
    refused(folder, "model.safetensors is truncated")


@pytest.mark.parametrize("inner", [{"a": {"b": [1, [{"num_layers": 10**30}]]}}, {"attention_types": [[["x"], 10**30]]}])
def test_numbers_in_inner_objects_are_seen(inner: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is 10{30}"):
        parse_config(json.dumps(inner).encode(), tmp_path)


def test_the_limits_themselves_and_numbers_that_are_no_sizes_are_taken(tmp_path: Path) -> None:
    check_values(tmp_path, {"num_hidden_layers": LISTS[r"(\w+_)?layers?"], "num_labels": LISTS["num_labels"]})
    check_values(tmp_path, {"num_train_steps": 10**12, "vocab_size_per_layer_input": 262144})
    check_values(tmp_path, {"eps": 1e300, "scale": -(10**30), "hidden_act": "gelu", "none": None})
