import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import huggingface_hub.errors
import numpy as np
import pytest
import safetensors.numpy
import torch

from toolchain.checkpoint import weights
from toolchain.checkpoint.model import (
    Source,
    choose_max_length,
    find_model,
    load_model,
    load_tokenizer,
    read_config,
    tokenizer_files,
)
from toolchain.checkpoint.tokenize import TextEncoder
from toolchain.data.demo import MODELS
from toolchain.errors import InputError, MachineError, UsageError


@pytest.fixture
def copy(tiny_distilbert: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint, for a test to change."""
    return Path(shutil.copytree(tiny_distilbert, tmp_path / "model"))


def configure(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def find(folder: Path, **choices: bool) -> Source:
    return find_model(str(folder), **choices)


def test_a_folder_is_found(tiny_distilbert: Path) -> None:
    found = find(tiny_distilbert)
    assert (found.folder, found.type, found.labels) == (tiny_distilbert, "distilbert", ["negative", "positive"])


@pytest.mark.parametrize("name", MODELS)
def test_a_demo_is_a_built_in_one(name: str) -> None:
    found = find_model(name)
    assert (found.folder, found.heads) == (MODELS[name], (name.removeprefix("demo-").replace("demo", "sequence"),))


def test_inputs_per_architecture(tiny_distilbert: Path, tiny_bert: Path, tiny_roberta: Path) -> None:
    both = ("input_ids", "attention_mask")
    assert find(tiny_distilbert).inputs == both
    assert find(tiny_bert).inputs == (*both, "token_type_ids")
    assert find(tiny_roberta).inputs == both


def test_an_old_bert_has_token_types_without_type_vocab_size(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "old"))
    config = json.loads((folder / "config.json").read_text())
    del config["type_vocab_size"]
    (folder / "config.json").write_text(json.dumps(config))
    assert "token_type_ids" in find(folder).inputs


@pytest.mark.parametrize("labels", [("b", "a", "c"), ("score",)])
def test_labels_are_in_the_order_of_their_index(tiny: ModuleType, tmp_path: Path, labels: tuple[str, ...]) -> None:
    found = find(tiny.make_checkpoint(tmp_path / "model", labels=labels))
    assert tuple(found.labels) == labels


def test_default_max_length_is_128_or_the_models_limit(tiny: ModuleType, tiny_roberta: Path, tmp_path: Path) -> None:
    assert choose_max_length(find(tiny_roberta), None) == 128
    short = tiny.make_checkpoint(tmp_path / "short", max_position_embeddings=64)
    assert choose_max_length(find(short), None) == 64
    tokens = json.loads((short / "tokenizer_config.json").read_text()) | {"model_max_length": 48}
    (short / "tokenizer_config.json").write_text(json.dumps(tokens))
    assert [choose_max_length(find(short), asked) for asked in (None, 60)] == [48, 60]


def test_roberta_has_512_positions_of_514(tiny_roberta: Path) -> None:
    found = find(tiny_roberta)
    assert choose_max_length(found, 512) == 512
    with pytest.raises(UsageError, match=r"^--max-length 513: .* takes at most 512 tokens\. Give 512 or less\.$"):
        choose_max_length(found, 513)


def test_the_largest_allowed_length_runs(tiny_roberta: Path) -> None:
    ids = torch.full((1, 512), 7)
    with torch.inference_mode():
        assert load_model(find(tiny_roberta))(input_ids=ids).logits.shape == (1, 2)


def test_digests_cover_every_file_that_logits_depend_on(copy: Path) -> None:
    (copy / "README.md").write_text("words")
    (copy / "added_tokens.json").write_text("{}")
    assert sorted(find(copy).digests) == [
        "added_tokens.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_digests_change_with_a_byte(copy: Path, name: str) -> None:
    before = find(copy).digests
    with (copy / name).open("ab") as file:
        file.write(b" ")
    after = find(copy).digests
    assert [file for file in before if before[file] != after[file]] == [name]


def test_digests_cover_pickles_and_code_only_if_they_are_used(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"")
    (copy / "modeling.py").write_bytes(b"")
    assert not {"pytorch_model.bin", "modeling.py"} & find(copy).digests.keys()
    assert {"pytorch_model.bin", "modeling.py"} <= find(copy, allow_pickle=True, trust_remote_code=True).digests.keys()


def test_a_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model: the folder has no weights\. Put model\.safetensors there, or"):
        find(copy)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"model: the folder has no config\.json\. Give the folder of a Hugging Face checkpoint\.$"),
        ("{", r"config\.json: the file is not JSON: .*\. Get the checkpoint again\.$"),
        ("\udcff", r"config\.json: the file is not JSON: 'utf-8' codec"),
        ("\ufeff{}", r"config\.json: the file begins with a byte order mark\. Save it in UTF-8 without one\.$"),
        ("[1]", r"config\.json: the file is not a JSON object\. Get"),
        ('{"id2label": {"a": "b"}}', r"config\.json: id2label is \{'a': 'b'\}\. Its keys must be 0, 1, 2"),
    ],
)
def test_a_broken_config_is_refused(copy: Path, text: str | None, message: str) -> None:
    (copy / "config.json").unlink()
    if text is not None:
        (copy / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        read_config(copy)


@pytest.fixture
def pickled(tiny: ModuleType, tmp_path: Path) -> Path:
    """A checkpoint whose weights are a pickle."""
    made: Path = tiny.make_checkpoint(tmp_path / "pickled", safe=False)
    return made


def test_pickles_are_refused(pickled: Path) -> None:
    with pytest.raises(
        InputError, match=r"has only pickled weights \(pytorch_model\.bin\), which can run .* if you trust them\.$"
    ):
        find(pickled)


def test_pickles_are_loaded_when_asked(pickled: Path, tiny_distilbert: Path) -> None:
    one, other = load_model(find(pickled, allow_pickle=True)), load_model(find(tiny_distilbert))
    assert torch.equal(one.classifier.weight, other.classifier.weight)


def test_a_pickle_is_not_loaded_instead_of_broken_safetensors(pickled: Path) -> None:
    (pickled / "other.safetensors").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"the checkpoint cannot be loaded as a classifier: there is no file named model\.safet"
    ):
        load_model(find(pickled))


@pytest.mark.parametrize("data", [b"", b"garbage", b"cos\nsystem\n(S'false'\ntR."])
def test_pickles_that_are_broken_or_run_code_are_refused(pickled: Path, data: bytes) -> None:
    (pickled / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"pickled: the checkpoint cannot be loaded as a classifier: "):
        load_model(find(pickled, allow_pickle=True))


@pytest.mark.parametrize("keep", [0, 7, 0.5, -1])
def test_truncated_weights_are_refused(copy: Path, keep: float) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: int(keep * len(data)) if keep == 0.5 else int(keep)])
    with pytest.raises(
        InputError, match=r"model: the checkpoint cannot be loaded as a classifier: .*\. Get the checkpoint again"
    ):
        load_model(find(copy))


def test_a_model_without_its_head_is_refused(copy: Path) -> None:
    tensors = safetensors.numpy.load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(("classifier", "pre_"))}
    safetensors.numpy.save_file(kept, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        InputError,
        match=r"model: the checkpoint lacks 4 weights, the first of them classifier\.bias\. Give a checkpoint that was",
    ):
        load_model(find(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dim": 32},
            r"model: the weight \S+ has shape \[.*64\], but config\.json needs \[.*32\]\. Get the checkpoint",
        ),
        (
            {"n_layers": 3},
            r"model: the checkpoint lacks 16 weights, the first of them distilbert\.transformer\.layer\.2\S+\.",
        ),
        ({"n_layers": "two"}, r"the checkpoint cannot be loaded as a classifier: .*'n_layers'.* expected int"),
        ({"model_type": "nonsense"}, r"the checkpoint cannot be loaded as a classifier: .*nonsense"),
        (
            {"model_type": "gpt2"},
            'model_type is gpt2, but the weights are those of Distil.*Set model_type to "distilbert"',
        ),
        ({"dim": 33}, r"the checkpoint cannot be loaded as a classifier: .*divide"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(find(configure(copy, **change)))


def test_pytorch_runs_no_more_threads_than_a_quota_allows(
    monkeypatch: pytest.MonkeyPatch, tiny_distilbert: Path
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(weights, "cpu_threads", lambda: 3)
    try:
        load_model(find(tiny_distilbert))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_half_weights_are_loaded_as_float32(tiny: ModuleType, tmp_path: Path) -> None:
    folder = tiny.make_checkpoint(tmp_path / "half", dtype="float16")
    stored = safetensors.numpy.load_file(folder / "model.safetensors")["classifier.weight"]
    model = load_model(find(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert stored.dtype == np.float16
    assert np.array_equal(model.classifier.weight.detach().numpy(), stored.astype(np.float32))
    assert not model.training


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_the_implementation_that_was_asked_for(tiny_bert: Path, attention: str) -> None:
    assert load_model(find(tiny_bert), attention=attention).config._attn_implementation == attention


@pytest.mark.parametrize("kind", ["tiny_distilbert", "tiny_bert", "tiny_roberta"])
def test_tokenizer_pads_on_the_right_with_the_model_s_token(request: pytest.FixtureRequest, kind: str) -> None:
    folder = request.getfixturevalue(kind)
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.padding_side, tokenizer.pad_token_id) == ("right", read_config(folder)["pad_token_id"])


def test_a_vocabulary_alone_gives_a_tokenizer(copy: Path, tiny: ModuleType) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(tiny.vocabulary("distilbert")))
    words = ["[CLS]", "a", "good", "film", "[SEP]"]
    assert load_tokenizer(copy)("a good film")["input_ids"] == [tiny.vocabulary("distilbert")[word] for word in words]


def test_a_missing_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"model: the tokenizer is missing\. Put tokenizer\.json into this folder\.$"):
        load_tokenizer(copy)


def test_a_broken_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"model: its tokenizer cannot be loaded: .* cannot read tokenizer\.json"):
        load_tokenizer(copy)


@pytest.mark.parametrize("name", ["no/such/folder", "./absent", "/absent", "~/absent"])
def test_a_missing_path_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^--model {name}: there is no such folder\. Give a checkpoint's folder or a hub id"
    ):
        find_model(name)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no such folder"):
        find(tmp_path / "file")


@pytest.mark.parametrize("name", ["bad id!", "org/", "a--b..c"])
def test_a_name_that_cannot_be_a_hub_id_is_refused(name: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^--model {name}: there is no such folder, and no such model on the hub\. Give"
    ):
        find_model(name)


Download = Callable[..., str]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Download], None]:
    """Replace the function that downloads from the hub."""
    return lambda download: monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


@pytest.mark.parametrize("error", [ConnectionError, TimeoutError, huggingface_hub.errors.LocalEntryNotFoundError])
def test_an_unreachable_hub_is_a_machine_error(hub: Any, error: type[Exception]) -> None:
    def download(name: str, *, ignore_patterns: list[str], local_files_only: bool) -> str:
        raise error("no route to host")

    hub(download)
    with pytest.raises(
        MachineError, match=rf"^--model org/name: the hub cannot be reached .* \({error.__name__}\)\. Give a local"
    ):
        find_model("org/name")


def test_without_download_only_the_cache_of_the_hub_is_read(hub: Any) -> None:
    asked: list[bool] = []

    def download(name: str, *, ignore_patterns: list[str], local_files_only: bool) -> str:
        asked.append(local_files_only)
        raise huggingface_hub.errors.LocalEntryNotFoundError("not there")

    hub(download)
    with pytest.raises(
        MachineError, match=r"^--model org/name: the model is not in the hub's cache\. Download it with: hf download"
    ):
        find_model("org/name", download=False)
    assert asked == [True]


@pytest.mark.parametrize("pickle", [False, True])
def test_only_needed_files_are_downloaded(hub: Any, tiny_distilbert: Path, pickle: bool) -> None:
    from huggingface_hub.utils import filter_repo_objects

    files = {"config.json", "model.safetensors", "vocab.txt", "bpe.codes", "entity_vocab.json", "spiece.model"}
    others = {"pytorch_model.bin", "modeling.py", "onnx/model.onnx", "tf_model.h5", "README.md", "model.onnx_data"}
    asked: list[str] = []

    def download(name: str, *, ignore_patterns: list[str], local_files_only: bool) -> str:
        asked.extend(filter_repo_objects([*files, *others], ignore_patterns=ignore_patterns))
        return str(tiny_distilbert)

    hub(download)
    assert find_model("org/name", allow_pickle=pickle).folder == tiny_distilbert
    assert set(asked) == files | ({"pytorch_model.bin"} if pickle else set())


def test_the_files_of_a_tokenizer_are_those_that_its_class_names(copy: Path, tiny: ModuleType) -> None:
    """BERTweet's are vocab.txt and bpe.codes, and it exists only in Python."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    (copy / "vocab.txt").write_text("".join(f"{word} 1\n" for word in (*tiny.WORDS, *"gofilm", "g@@", "o@@", "d")))
    (copy / "bpe.codes").write_text("g o 5\ngo o 4\ngoo d</w> 3\n")
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "BertweetTokenizer"}')
    (copy / "notes.txt").write_text("")
    tokenizer = load_tokenizer(copy)
    assert tokenizer_files(tokenizer, copy) == ["bpe.codes", "tokenizer_config.json", "vocab.txt"]
    text, texts = "a good film", [("a good film",), ("no",)]
    encoder = TextEncoder(tokenizer, max_length=9, inputs=("input_ids",))
    assert encoder.rust is None
    assert encoder(texts).columns["input_ids"][0] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.bpe.model"])
def test_a_missing_sentencepiece_is_named_with_its_extra(copy: Path, name: str, monkeypatch: Any) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / name).write_bytes(b"")
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    wanted = rf"its tokenizer \({re.escape(name)}\) needs sentencepiece, which is not .*encoder-toolchain\[tokenizers\]"
    with pytest.raises(MachineError, match=wanted):
        load_tokenizer(copy)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ImportError("requires the protobuf library\nRun `pip install x`", name="einops"),
            "needs einops, which is not",
        ),
        (
            ImportError("requires packages that were not found in your environment: flash_attn. Run x"),
            "needs flash_attn, which is not installed. Install it with: pip install flash_attn",
        ),
        (
            ImportError("LayoutLMv2Model requires the detectron2 library but it was not found. Check out"),
            "needs detectron2, which is not installed. Install it with: pip install detectron2",
        ),
        (ImportError("SentencePiece library but it was not found"), "pip install 'encoder-toolchain"),
    ],
)
def test_a_package_that_own_code_needs_is_named(copy: Path, error: Exception, message: str, monkeypatch: Any) -> None:
    import transformers

    def refuse(*arguments: Any, **choices: Any) -> None:
        raise error

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", refuse)
    with pytest.raises(MachineError, match=re.escape(message)) as refused:
        load_model(find(copy))
    assert "Run" not in str(refused.value)
