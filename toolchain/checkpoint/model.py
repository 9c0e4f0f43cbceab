"""A Hugging Face classifier: its files, its inputs and labels, and its weights in float32."""

import functools
import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.data.demo import FOLDER as DEMO
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.files import sha256_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_MAX_LENGTH = 128

# Patterns of the files of a checkpoint.
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "added_tokens.json", "special_tokens_map.json", "*.model")
VOCABULARY_FILES = ("tokenizer.json", "vocab*", "*.model")
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
PICKLE_FILES = ("pytorch_model*.bin", "*.bin.index.json")
CODE_FILES = ("*.py",)

# Architectures that build their own attention masks and do not take an additive 4-D one.
OWN_MASKS = {"deberta", "deberta-v2", "modernbert"}


@dataclass(frozen=True)
class Source:
    """A checkpoint: the name that the user gave, its folder, and its config.json."""

    name: str
    folder: Path
    config: dict[str, Any]  # config.json of any architecture
    allow_pickle: bool = False
    trust_remote_code: bool = False

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """File name -> SHA-256, for every file that the logits depend on. The files are read once."""
        patterns = ["config.json", *TOKENIZER_FILES, *WEIGHT_FILES]
        patterns += PICKLE_FILES if self.allow_pickle else ()
        patterns += CODE_FILES if self.trust_remote_code else ()
        files = {file for pattern in patterns for file in self.folder.glob(pattern)}
        return {file.name: sha256_file(file) for file in sorted(files) if file.is_file()}

    @property
    def type(self) -> str:
        """The name of the architecture, such as distilbert."""
        return str(self.config.get("model_type", "unknown"))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model's inputs, in order."""
        # BERT has two token types even if an old config.json does not state them; RoBERTa has one.
        typed = _number(self, "type_vocab_size", 2 if self.type == "bert" else 0) > 1
        return ("input_ids", "attention_mask", *(["token_type_ids"] if typed else []))

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        named = self.config.get("id2label")
        count = len(named) if named else int(self.config.get("num_labels", 2))
        named = named or {str(index): f"LABEL_{index}" for index in range(count)}
        return [str(named[key]) for key in sorted(named, key=int)]

    @property
    def regression(self) -> bool:
        """Whether the model computes one number instead of classes."""
        return len(self.labels) == 1


def find_model(name: str, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Source:
    """Find a checkpoint: `demo`, a local folder, or a hub id (downloaded, or from the hub's cache).

    Raises:
        InputError: the folder lacks config.json or weights, or its weights are pickled.
        MachineError: the hub is needed and cannot be reached.
        UsageError: the name is neither a folder nor a hub id.
    """
    folder = DEMO if name == "demo" else Path(name)
    if not folder.is_dir():
        if folder.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
            raise UsageError(f"--model {name}: no such folder. Give a checkpoint's folder or a hub id.")
        folder = _from_hub(name, allow_pickle=allow_pickle, code=trust_remote_code)
    config = read_config(folder)
    if not any(file for pattern in WEIGHT_FILES for file in folder.glob(pattern)):
        pickled = [file.name for pattern in PICKLE_FILES for file in folder.glob(pattern)]
        if not pickled:
            raise InputError(
                f"{folder}: has no safetensors weights. Put model.safetensors there, or allow pickled weights "
                "with --allow-pickle."
            )
        if not allow_pickle:
            raise InputError(
                f"{folder}: has only pickled weights ({pickled[0]}), which can run code when loaded. "
                "Convert them to safetensors, or trust them with --allow-pickle."
            )
    return Source(name, folder, config, allow_pickle, trust_remote_code)


def _from_hub(name: str, *, allow_pickle: bool, code: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    wanted = ["config.json", *TOKENIZER_FILES, *WEIGHT_FILES]
    wanted += PICKLE_FILES if allow_pickle else ()
    wanted += CODE_FILES if code else ()
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UsageError(
            f"--model {name}: no such folder, and not on the hub. Give a checkpoint's folder, a hub id, or `demo`."
        ) from error
    except Exception as error:  # the hub's client has no common error for "cannot be reached"
        raise MachineError(
            f"--model {name}: the hub cannot be reached and the model is not in its cache "
            f"({type(error).__name__}). Give a local checkpoint with -m DIR, or try `-m demo --task demo`."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:  # the keys depend on the architecture
    """Read the config.json of a checkpoint or a bundle.

    Raises:
        InputError: the file is missing or not a JSON object, or a key of id2label is not an index.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: has no config.json. Give the folder of a Hugging Face checkpoint.") from None
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}. Get the checkpoint again.") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: not a JSON object. Get the checkpoint again.")
    if not all(str(key).isdecimal() for key in config.get("id2label") or {}):
        raise InputError(f"{file}: id2label is {config['id2label']}. Its keys must be 0, 1, 2 ...")
    return config


def load_model(source: Source, *, attention: str | None = None) -> "PreTrainedModel":
    """Load the checkpoint in float32 and in evaluation mode, whatever its stored type.

    `attention` names an implementation of transformers (eager, sdpa); None means the model's default.

    Raises:
        InputError: transformers cannot load it as a sequence classifier, or a file is broken.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    _transformers_silenced()
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source.folder,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=not source.allow_pickle or None,
            trust_remote_code=source.trust_remote_code,
            ignore_mismatched_sizes=True,  # refused below, with the name of the weight
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises various classes for broken files
        raise InputError(
            f"{source.folder}: cannot be loaded as a classifier: {_short(error)}. Get the checkpoint again, "
            "or give one with a sequence classification head."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"{source.folder}: lacks {len(missing)} weights, the first is {missing[0]}. "
            "Give a checkpoint that was fine-tuned for classification."
        )
    if mismatched := sorted(info["mismatched_keys"]):
        name, stored, wanted = mismatched[0]
        raise InputError(
            f"{source.folder}: {name} is {list(stored)} in the weights; config.json needs {list(wanted)}. "
            "Get the checkpoint again."
        )
    return model.eval()


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a checkpoint or a bundle, and set it to pad on the right.

    Raises:
        InputError: the folder lacks a tokenizer that transformers can load.
    """
    from transformers import AutoTokenizer

    if not any(file for pattern in VOCABULARY_FILES for file in folder.glob(pattern)):
        # transformers would silently make a tokenizer with an empty vocabulary.
        raise InputError(f"{folder}: has no tokenizer. Put tokenizer.json there.")
    _transformers_silenced()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises various classes for broken files
        raise InputError(
            f"{folder}: its tokenizer cannot be loaded: {_short(error)}. Put tokenizer.json there."
        ) from error
    tokenizer.padding_side = "right"
    return tokenizer


def choose_max_length(source: Source, asked: int | None) -> int:
    """Return the truncation length in tokens: `asked`, or else 128 or the model's limit if that is less.

    Raises:
        UsageError: the model has fewer positions than `asked`.
    """
    positions = _number(source, "max_position_embeddings", DEFAULT_MAX_LENGTH)
    if source.type in {"roberta", "xlm-roberta", "camembert", "mpnet"}:
        positions -= _number(source, "pad_token_id", 1) + 1  # positions start after the padding id
    if asked is not None and asked > positions:
        raise UsageError(f"--max-length {asked}: {source.name} has {positions} positions. Give {positions} or less.")
    return asked or min(DEFAULT_MAX_LENGTH, positions)


def _number(source: Source, key: str, default: int) -> int:
    value = source.config.get(key, default)
    if not isinstance(value, int):
        raise InputError(f"{source.folder / 'config.json'}: {key} is {value!r}, not a whole number. Fix it.")
    return value


def _short(error: Exception) -> str:
    """Return the beginning of an error's message on one line, or the name of its class without one."""
    return textwrap.shorten(str(error), 130, placeholder=" …").rstrip(".:") or type(error).__name__


def _transformers_silenced() -> None:
    """Keep transformers' progress bars and advice off the terminal; it still logs errors."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
