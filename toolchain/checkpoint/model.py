"""A Hugging Face checkpoint: how it is found, the digests of its files, and loading of its weights and tokenizer."""

import codecs
import functools
import importlib.util
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.base.files import open_file, private_folder, sha256_file
from toolchain.base.progress import still
from toolchain.checkpoint.checks import (
    AGAIN,
    PROBLEMS,
    check_config,
    check_folder,
    check_head,
    says_tags,
)
from toolchain.checkpoint.faults import (
    INDEX,
    TOKENIZER_EXTRA,
    WEIGHTS,
    check_index,
    why_no_package,
    why_no_tokenizer,
)
from toolchain.checkpoint.pooling import Pooling, choose_pooling, read_limit, read_modules
from toolchain.checkpoint.sizes import check_values
from toolchain.checkpoint.stored_tokenizer import StoredTokenizer, tokenizer_files
from toolchain.checkpoint.weights import load_as, silence
from toolchain.data import demo
from toolchain.errors import InputError, MachineError, UsageError, first_line
from toolchain.records.bundle import StoredTokenizerRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from toolchain.checkpoint.facts import Facts

log = logging.getLogger(__name__)

DEFAULT_MAX_LENGTH = 128
# Byte order marks, with which some programs begin a text file. JSON must not have one.
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

# Head -> auto class of transformers that loads the model. All other heads use AutoModelForSequenceClassification.
OTHER_CLASSES = {"embedding": "AutoModel", "tokens": "AutoModelForTokenClassification"}

# Patterns of the names of a checkpoint's files.
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
PICKLE_FILES = ("pytorch_model*.bin", "*.bin.index.json")
CODE_FILES = ("*.py",)

# What is not downloaded from a hub repository: subfolders, except modules such as 1_Pooling; weights in other formats;
# documentation and images.
OTHER_FORMATS = ("h5", "msgpack", "ot", "onnx*", "pt", "pth", "ckpt", "gguf", "tflite", "mlmodel", "pkl", "npz", "zip")
NOT_DOWNLOADED = ("[!0-9]*/*", *(f"*.{form}" for form in (*OTHER_FORMATS, "md", "png", "jpg", "gif", "pdf")))


@dataclass(frozen=True)
class Source:
    """A checkpoint, or the checkpoint of a bundle: the name that the user gave, its folder, and its config.json.

    `pooling` makes the vector of a text from the vectors of its tokens; None for a classifier.

    Three fields are set for a bundle only. `known` are the facts, from its manifest. `files` are the bundle's files for
    transformers, name -> bytes, and `stored` describes the file of a tokenizer that runs without transformers.
    """

    name: str
    folder: Path
    config: dict[str, Any]  # the keys depend on the architecture
    allow_pickle: bool = False
    trust_remote_code: bool = False
    ignore_unused: str | None = None
    pooling: Pooling | None = None
    known: "Facts | None" = None
    files: Mapping[str, bytes] | None = None
    stored: StoredTokenizerRecord | None = None

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """File name -> hex SHA-256, for every file that the logits depend on. They are computed once."""
        patterns = ["config.json", *self.weight_files, *(CODE_FILES if self.trust_remote_code else ())]
        files = {file for pattern in patterns for file in self.folder.glob(pattern)}
        files |= {self.folder / name for name in tokenizer_files(self.tokenizer, self.folder)}
        return {file.name: sha256_file(file) for file in sorted(files) if file.is_file()}

    @property
    def weight_files(self) -> tuple[str, ...]:
        """File name patterns of the weights to load: safetensors, and with `allow_pickle` also pickles."""
        return (*WEIGHT_FILES, *(PICKLE_FILES if self.allow_pickle else ()))

    @property
    def weight_bytes(self) -> int:
        """The total size in bytes of the files of weights that match `weight_files`."""
        return sum((self.folder / name).stat().st_size for name in _names(self.folder, self.weight_files))

    @functools.cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer: transformers' own, or for most bundles one that needs only the Rust library `tokenizers`.

        Raises:
            ToolchainError: see `load_tokenizer` and `StoredTokenizer`.
        """
        if self.stored and self.files is not None:
            return StoredTokenizer(self.stored, self.files, self.folder)
        return load_tokenizer(self.folder, trust_remote_code=self.trust_remote_code, files=self.files)

    @functools.cached_property
    def facts(self) -> "Facts":
        """The facts about the checkpoint. If they are not known yet, the model is loaded and run to find them.

        Raises:
            ToolchainError: see `examine`.
        """
        from toolchain.checkpoint.facts import examine

        return self.known or examine(self)

    @property
    def type(self) -> str:
        """The name of the architecture, such as distilbert."""
        return str(self.config.get("model_type", "unknown"))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model's inputs, in order."""
        return tuple(self.facts.values)

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the heads (see `heads.HEADS`) that config.json allows, the most likely one first."""
        if self.pooling or says_tags(self.config):
            return ("embedding",) if self.pooling else ("tokens",)
        return PROBLEMS.get(self.config.get("problem_type"), ("sequence",))

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the logits."""
        return list(self.facts.labels)


def find_model(
    name: str,
    *,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    ignore_unused: str | None = None,
    pooling: Pooling | None = None,
    download: bool = True,
) -> Source:
    """Find and check a checkpoint: one of `demo.MODELS`, a local folder, or a hub id.

    A model of the hub is downloaded, or read from the hub's cache; `download=False` allows the cache only. `pooling` is
    the task's pooling for an encoder without a head; a folder of sentence-transformers has its own.

    Raises:
        InputError: the folder is not a checkpoint, lacks config.json or weights, or has only pickled weights that are
            not allowed.
        MachineError: the hub is needed and cannot be reached.
        UsageError: the name is neither a folder nor a hub id.
    """
    folder = demo.MODELS.get(name, Path(name))
    if not folder.is_dir():
        if folder.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
            raise UsageError(f"--model {name}: there is no such folder. Give a checkpoint's folder or a hub id.")
        folder = _from_hub(name, allow_pickle=allow_pickle, code=trust_remote_code, download=download)
    whole, (folder, stated) = folder, read_modules(folder)
    safe, pickled = _names(folder, WEIGHT_FILES), _names(folder, PICKLE_FILES)
    check_folder(folder, weights=bool((folder / "config.json").is_file() and (safe or pickled)))
    config = read_config(folder)
    pooling = choose_pooling(whole, config, pooling, stated)
    check_config(folder, config)
    if not safe and not pickled:
        raise InputError(
            f"{folder}: the folder has no weights. Put model.safetensors there, or pickled weights with --allow-pickle."
        )
    if not safe and not allow_pickle:
        raise InputError(
            f"{folder}: the folder has only pickled weights ({pickled[0]}), which can run code when loaded. "
            "Convert them to safetensors, or give --allow-pickle if you trust them."
        )
    if INDEX in safe and WEIGHTS not in safe:
        check_index(folder)
    if {WEIGHTS, INDEX} <= {*safe}:
        log.warning("%s: there are both %s, which is used, and %s. Remove the old one.", folder, WEIGHTS, INDEX)
    return Source(name, folder, config, allow_pickle, trust_remote_code, ignore_unused, pooling)


def _names(folder: Path, patterns: Iterable[str]) -> list[str]:
    return [file.name for pattern in patterns for file in folder.glob(pattern)]


def _from_hub(name: str, *, allow_pickle: bool, code: bool, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    skipped = [*NOT_DOWNLOADED, *(() if allow_pickle else ("*.bin",)), *(() if code else CODE_FILES)]
    try:
        with still():  # the hub's library draws its own progress bars
            return Path(snapshot_download(name, ignore_patterns=skipped, local_files_only=not download))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UsageError(
            f"--model {name}: there is no such folder, and no such model on the hub. Give a checkpoint's folder, a hub "
            "id, or `demo`."
        ) from error
    except Exception as error:  # the hub's client has no common error for "cannot be reached"
        if not download:
            raise MachineError(
                f"--model {name}: the model is not in the hub's cache. Download it with: hf download {name}"
            ) from error
        raise MachineError(
            f"--model {name}: the hub cannot be reached and the model is not in its cache "
            f"({type(error).__name__}). Give a local checkpoint with -m DIR, or try `-m demo --task demo`."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:  # the keys depend on the architecture
    """Return the content of a checkpoint's config.json.

    Raises:
        InputError: the file is missing; see also `parse_config`.
    """
    try:
        with open_file(folder / "config.json") as file:
            return parse_config(file.read(), folder)
    except FileNotFoundError:
        raise InputError(
            f"{folder}: the folder has no config.json. Give the folder of a Hugging Face checkpoint."
        ) from None


def parse_config(data: bytes, folder: Path) -> dict[str, Any]:  # the keys depend on the architecture
    """Parse and check the bytes of a config.json; error messages name its `folder`.

    Raises:
        InputError: the file is not a JSON object; see also `check_values`.
    """
    file = folder / "config.json"
    try:
        config = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        if data.startswith(MARKS):
            raise InputError(f"{file}: the file begins with a byte order mark. Save it in UTF-8 without one.") from None
        raise InputError(f"{file}: the file is not JSON: {first_line(error)}. {AGAIN}") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: the file is not a JSON object. {AGAIN}")
    check_values(file, config)
    return config


def load_model(source: Source, *, attention: str | None = None) -> "PreTrainedModel":
    """Load the model of a checkpoint in float32, whatever the type of its stored weights, and in evaluation mode.

    `attention` names an implementation of attention in transformers (eager, sdpa); None means the model's default.

    Raises:
        InputError: the model has another task, a file is broken, or weights do not fit (see checks.py and sizes.py).
        MachineError: the checkpoint's code needs a package that is not installed.
    """
    if source.heads[0] not in OTHER_CLASSES:
        check_head(source.folder, source.config, trusted=source.trust_remote_code)
    auto = OTHER_CLASSES.get(source.heads[0], "AutoModelForSequenceClassification")
    return load_as(auto, source, kind="an encoder" if source.pooling else "a classifier", attention=attention)


def load_tokenizer(
    folder: Path, *, trust_remote_code: bool = False, files: Mapping[str, bytes] | None = None
) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a checkpoint, or of a bundle from its `files`, and set it to pad on the right.

    transformers reads every file in a folder whose name it knows. So for a bundle, it gets a temporary folder with the
    listed files only, with the content whose digests were checked.

    Raises:
        InputError: the folder lacks a tokenizer that transformers can load.
        MachineError: the tokenizer needs a package that is not installed.
    """
    if files is None:
        return _load_tokenizer(folder, folder, trust_remote_code=trust_remote_code)
    with private_folder(files) as place:
        return _load_tokenizer(place, folder, trust_remote_code=trust_remote_code)


def _load_tokenizer(place: Path, folder: Path, *, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    """Load the tokenizer from the files in `place`; error messages name `folder` instead."""
    from transformers import AutoTokenizer

    silence()
    _check_packages(place, folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
        # If all files of the vocabulary are missing, transformers makes a tokenizer with special tokens only.
        empty = not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    except ImportError as error:
        raise MachineError(f"{folder}: its tokenizer cannot be loaded: {why_no_package(error)}") from error
    except Exception as error:  # transformers raises various classes for broken files
        raise InputError(f"{folder}: {why_no_tokenizer(place, folder, error)}") from error
    if empty:
        raise InputError(f"{folder}: the tokenizer is missing. Put tokenizer.json into this folder.")
    tokenizer.padding_side = "right"
    return tokenizer


def _check_packages(place: Path, folder: Path) -> None:
    """Raise an error if only sentencepiece can read the tokenizer, and it is not installed.

    transformers itself would try other formats, and fail with a message that does not name sentencepiece.
    """
    models = sorted(file.name for file in place.glob("*.model"))
    if models and not (place / "tokenizer.json").exists() and importlib.util.find_spec("sentencepiece") is None:
        raise MachineError(
            f"{folder}: its tokenizer ({models[0]}) needs sentencepiece, which is not installed. "
            f"Install it with: {TOKENIZER_EXTRA}."
        )


def choose_max_length(source: Source, asked: int | None) -> int:
    """Return the truncation length in tokens: `asked`, or else 128, or less if the model or the tokenizer allows less.

    A folder of sentence-transformers may have its own default instead of 128.

    Raises:
        UsageError: the model has fewer positions than `asked`.
    """
    positions = source.facts.longest
    if positions is not None and asked is not None and asked > positions:
        raise UsageError(
            f"--max-length {asked}: {source.name} takes at most {positions} tokens. Give {positions} or less."
        )
    default = (source.pooling and read_limit(source.folder)) or DEFAULT_MAX_LENGTH
    return asked or min(default, positions or default, int(source.tokenizer.model_max_length))
