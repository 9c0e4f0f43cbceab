"""A Hugging Face classifier: where it lies, the digests of its files, its weights in float32, and its tokenizer."""

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
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # of files that other programs saved
OTHER_CLASSES = {"embedding": "AutoModel", "tokens": "AutoModelForTokenClassification"}  # of heads of no sequence

# Patterns of the files of a checkpoint.
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
PICKLE_FILES = ("pytorch_model*.bin", "*.bin.index.json")
CODE_FILES = ("*.py",)

# Of a hub repository, the root and modules such as 1_Pooling are downloaded, and no other formats or pages.
OTHER_FORMATS = ("h5", "msgpack", "ot", "onnx*", "pt", "pth", "ckpt", "gguf", "tflite", "mlmodel", "pkl", "npz", "zip")
NOT_DOWNLOADED = ("[!0-9]*/*", *(f"*.{form}" for form in (*OTHER_FORMATS, "md", "png", "jpg", "gif", "pdf")))


@dataclass(frozen=True)
class Source:
    """A checkpoint: the name that the user gave, its folder, and its config.json.

    `pooling` makes a vector of a text from those of its tokens; None for a classifier.
    `known` are the facts of a bundle's checkpoint, which its manifest states; those of a checkpoint are read from it.
    `files` are the files of a bundle for transformers, name -> bytes; those of a checkpoint are read from its folder.
    `stored` describes the one among them that is the tokenizer without transformers.
    """

    name: str
    folder: Path
    config: dict[str, Any]  # config.json of any architecture
    allow_pickle: bool = False
    trust_remote_code: bool = False
    ignore_unused: str | None = None
    pooling: Pooling | None = None
    known: "Facts | None" = None
    files: Mapping[str, bytes] | None = None
    stored: StoredTokenizerRecord | None = None

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """File name -> SHA-256, for every file that the logits depend on. The files are read once."""
        patterns = ["config.json", *self.weight_files, *(CODE_FILES if self.trust_remote_code else ())]
        files = {file for pattern in patterns for file in self.folder.glob(pattern)}
        files |= {self.folder / name for name in tokenizer_files(self.tokenizer, self.folder)}
        return {file.name: sha256_file(file) for file in sorted(files) if file.is_file()}

    @property
    def weight_files(self) -> tuple[str, ...]:
        """The patterns of the files of weights that may be read."""
        return (*WEIGHT_FILES, *(PICKLE_FILES if self.allow_pickle else ()))

    @property
    def weight_bytes(self) -> int:
        """The size of those files."""
        return sum((self.folder / name).stat().st_size for name in _names(self.folder, self.weight_files))

    @functools.cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The checkpoint's tokenizer: of a bundle in the Rust library alone if that gives its ids, else transformers'.

        Raises:
            ToolchainError: see `load_tokenizer` and `StoredTokenizer`.
        """
        if self.stored and self.files is not None:
            return StoredTokenizer(self.stored, self.files, self.folder)
        return load_tokenizer(self.folder, trust_remote_code=self.trust_remote_code, files=self.files)

    @functools.cached_property
    def facts(self) -> "Facts":
        """What the checkpoint says of itself; it is loaded and tried once.

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
        """The names of the heads that config.json allows, the one that it means first; see `heads.HEADS`."""
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
    """Find a checkpoint: one of `demo.MODELS`, a local folder, or a hub id (downloaded, or from the hub's cache).

    An encoder gets `pooling`; a folder of sentence-transformers states its own. Without `download` the network is not
    used.

    Raises:
        InputError: the folder is of another kind, lacks config.json or weights, or its weights are pickled.
        MachineError: the hub is needed and cannot be reached.
        UsageError: the name is neither a folder nor a hub id.
    """
    folder = demo.MODELS.get(name, Path(name))
    if not folder.is_dir():
        if folder.exists() or name.count("/") > 1 or name.startswith((".", "/", "~")):
            raise UsageError(f"--model {name}: no such folder. Give a checkpoint's folder or a hub id.")
        folder = _from_hub(name, allow_pickle=allow_pickle, code=trust_remote_code, download=download)
    whole, (folder, stated) = folder, read_modules(folder)
    safe, pickled = _names(folder, WEIGHT_FILES), _names(folder, PICKLE_FILES)
    check_folder(folder, weights=bool((folder / "config.json").is_file() and (safe or pickled)))
    config = read_config(folder)
    pooling = choose_pooling(whole, config, pooling, stated)
    check_config(folder, config)
    if not safe and not pickled:
        raise InputError(
            f"{folder}: has no safetensors weights. Put model.safetensors there, or allow pickled weights "
            "with --allow-pickle."
        )
    if not safe and not allow_pickle:
        raise InputError(
            f"{folder}: has only pickled weights ({pickled[0]}), which can run code when loaded. "
            "Convert them to safetensors, or trust them with --allow-pickle."
        )
    if INDEX in safe and WEIGHTS not in safe:
        check_index(folder)
    if {WEIGHTS, INDEX} <= {*safe}:
        log.warning("%s: has both %s, which is used, and %s. Move away what is old.", folder, WEIGHTS, INDEX)
    return Source(name, folder, config, allow_pickle, trust_remote_code, ignore_unused, pooling)


def _names(folder: Path, patterns: Iterable[str]) -> list[str]:
    return [file.name for pattern in patterns for file in folder.glob(pattern)]


def _from_hub(name: str, *, allow_pickle: bool, code: bool, download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    skipped = [*NOT_DOWNLOADED, *(() if allow_pickle else ("*.bin",)), *(() if code else CODE_FILES)]
    try:
        with still():  # the hub's library draws bars of its own
            return Path(snapshot_download(name, ignore_patterns=skipped, local_files_only=not download))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UsageError(
            f"--model {name}: no such folder, and not on the hub. Give a checkpoint's folder, a hub id, or `demo`."
        ) from error
    except Exception as error:  # the hub's client has no common error for "cannot be reached"
        if not download:
            raise MachineError(f"--model {name}: not in the hub's cache. Download it: hf download {name}") from error
        raise MachineError(
            f"--model {name}: the hub cannot be reached and the model is not in its cache "
            f"({type(error).__name__}). Give a local checkpoint with -m DIR, or try `-m demo --task demo`."
        ) from error


def read_config(folder: Path) -> dict[str, Any]:  # the keys depend on the architecture
    """Read the config.json of a checkpoint.

    Raises:
        InputError: the file is missing; see also `parse_config`.
    """
    try:
        with open_file(folder / "config.json") as file:
            return parse_config(file.read(), folder)
    except FileNotFoundError:
        raise InputError(f"{folder}: has no config.json. Give the folder of a Hugging Face checkpoint.") from None


def parse_config(data: bytes, folder: Path) -> dict[str, Any]:  # the keys depend on the architecture
    """Return the value of a config.json from its bytes; `folder` is for the message.

    Raises:
        InputError: it is not a JSON object, or see `check_values`.
    """
    file = folder / "config.json"
    try:
        config = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        if data.startswith(MARKS):
            raise InputError(f"{file}: begins with a byte order mark. Save it in UTF-8 without one.") from None
        raise InputError(f"{file}: not JSON: {first_line(error)}. {AGAIN}") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: not a JSON object. {AGAIN}")
    check_values(file, config)
    return config


def load_model(source: Source, *, attention: str | None = None) -> "PreTrainedModel":
    """Load the checkpoint in float32 and in evaluation mode, whatever its stored type.

    `attention` names an implementation of transformers (eager, sdpa); None means the model's default.

    Raises:
        InputError: it is not a classifier, a file is broken, or weights do not fit (see checks.py and sizes.py).
        MachineError: its code needs a package that is not installed.
    """
    if source.heads[0] not in OTHER_CLASSES:
        check_head(source.folder, source.config, trusted=source.trust_remote_code)
    auto = OTHER_CLASSES.get(source.heads[0], "AutoModelForSequenceClassification")
    return load_as(auto, source, kind="an encoder" if source.pooling else "a classifier", attention=attention)


def load_tokenizer(
    folder: Path, *, trust_remote_code: bool = False, files: Mapping[str, bytes] | None = None
) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a checkpoint, or of a bundle from its `files`, and set it to pad on the right.

    transformers reads whatever has a name that it knows in the folder that it is given. Of a bundle, it is given a
    private folder with the listed files alone, as they were when their digests were checked.

    Raises:
        InputError: the folder lacks a tokenizer that transformers can load.
        MachineError: the tokenizer needs a package that is not installed.
    """
    if files is None:
        return _load_tokenizer(folder, folder, trust_remote_code=trust_remote_code)
    with private_folder(files) as place:
        return _load_tokenizer(place, folder, trust_remote_code=trust_remote_code)


def _load_tokenizer(place: Path, folder: Path, *, trust_remote_code: bool) -> "PreTrainedTokenizerBase":
    """Load the tokenizer from the files in `place`; messages name `folder`."""
    from transformers import AutoTokenizer

    silence()
    _check_packages(place, folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
        # Without any file of a vocabulary, transformers silently makes a tokenizer of special tokens alone.
        empty = not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    except ImportError as error:
        raise MachineError(f"{folder}: its tokenizer: {why_no_package(error)}") from error
    except Exception as error:  # transformers raises various classes for broken files
        raise InputError(f"{folder}: {why_no_tokenizer(place, folder, error)}") from error
    if empty:
        raise InputError(f"{folder}: has no tokenizer. Put tokenizer.json there.")
    tokenizer.padding_side = "right"
    return tokenizer


def _check_packages(place: Path, folder: Path) -> None:
    """Refuse a tokenizer that only sentencepiece can read if it is missing; transformers would try others in vain."""
    models = sorted(file.name for file in place.glob("*.model"))
    if models and not (place / "tokenizer.json").exists() and importlib.util.find_spec("sentencepiece") is None:
        raise MachineError(
            f"{folder}: its tokenizer is a model of sentencepiece ({models[0]}), which is not installed. "
            f"Install it with: {TOKENIZER_EXTRA}."
        )


def choose_max_length(source: Source, asked: int | None) -> int:
    """Return the truncation length in tokens: `asked`, or else 128, or the model's or the tokenizer's limit if less.

    A folder of sentence-transformers may state its own in the place of 128.

    Raises:
        UsageError: the model has fewer positions than `asked`.
    """
    positions = source.facts.longest
    if positions is not None and asked is not None and asked > positions:
        raise UsageError(f"--max-length {asked}: {source.name} has {positions} positions. Give {positions} or less.")
    default = (source.pooling and read_limit(source.folder)) or DEFAULT_MAX_LENGTH
    return asked or min(default, positions or default, int(source.tokenizer.model_max_length))
