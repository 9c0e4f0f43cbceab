"""Explanations why transformers failed to load a checkpoint or its tokenizer, for error messages.

Messages of transformers often name only a byte of a header or an internal type, and give advice for programmers.
"""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from toolchain.checkpoint.checks import AGAIN, OWN_CODE, types_of, types_of_classifiers
from toolchain.errors import InputError, why_not_imported

# The first bytes of a Git LFS pointer, a small file in the place of a large file that was not fetched yet.
POINTER = b"version https://git-lfs"

# The file of the weights, and the index of weights that are split over several files: weight name -> file.
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

# Patterns of the tokenizer's files that contain its vocabulary.
VOCABULARIES = ("tokenizer.json", "vocab*", "*.model")

# Packages that only some tokenizers need, and the command that installs them as an extra of this project.
TOKENIZER_PACKAGES = ("sentencepiece", "tiktoken")
TOKENIZER_EXTRA = "pip install 'encoder-toolchain[tokenizers]'"


def why_no_model(
    folder: Path,
    config: dict[str, Any],  # the keys depend on the architecture
    error: Exception,
    *,
    trusted: bool,
) -> str:
    """Return why transformers could not load a model, and what to do about it.

    `error` is the exception that was raised, and `trusted` tells whether the checkpoint's own code was allowed to run.
    """
    if fault := fault_of_class(folder, config) or _fault_of_type(config) or _fault_of_weights(folder):
        return fault
    if isinstance(error, InputError):
        return str(error)
    if "auto_map" in config and not trusted:
        return f"{cause(error)}. {OWN_CODE}"
    if config.get("model_type") in types_of_classifiers():  # this type has classifiers, so the head is not the cause
        return f"{cause(error)}. Fix its config.json, or get the checkpoint again."
    return f"{cause(error)}. Give a checkpoint with a sequence classification head."


def fault_of_class(folder: Path, config: dict[str, Any]) -> str | None:  # the keys depend on the architecture
    """Return a message if the weights fit the class in `architectures` instead of `model_type`; None if they do not.

    transformers chooses the class by `model_type`. Call this only if the weights do not fit the model that it made.
    """
    import torch
    import transformers

    stated, kind = next((str(name) for name in config.get("architectures") or []), ""), config.get("model_type")
    if "auto_map" in config or kind in (types := types_of(stated)) or not types:
        return None
    others = {key: value for key, value in config.items() if key != "model_type"}
    try:
        with torch.device("meta"):  # where tensors take no memory
            wanted = getattr(transformers, stated)(transformers.CONFIG_MAPPING[types[0]](**others))
        if not {name for name, _ in wanted.named_parameters()} <= _stored(folder):
            return None
    except Exception:  # any class; the caller then returns a more general message
        return None
    what = "is missing" if kind is None else f"is {kind}"
    return (
        f"config.json: model_type {what}, but the weights are those of {stated}, which architectures names. "
        f'Set model_type to "{types[0]}".'
    )


def _stored(folder: Path) -> set[str]:
    """Return the names of the weights in the safetensors files that transformers reads."""
    from safetensors import safe_open

    found: set[str] = set()
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "np") as opened:
            found |= set(opened.keys())
    return found


def _fault_of_type(config: dict[str, Any]) -> str | None:  # the keys depend on the architecture
    from transformers import CONFIG_MAPPING, __version__

    kind = config.get("model_type")
    if "auto_map" in config or kind in CONFIG_MAPPING:
        return None
    if kind is None:
        return f"config.json has no model_type. {AGAIN}"
    return f"transformers {__version__} does not have the model type {kind}. Give a checkpoint of another type."


def _fault_of_weights(folder: Path) -> str | None:
    """Return a message about the first file of weights that is missing, truncated or misnamed; None if all are fine."""
    files = sorted(folder.glob("*.safetensors"))
    index = folder / INDEX
    if lost := _first_lost([*files, index, *folder.glob("pytorch_model*.bin")]):
        return lost
    if not (folder / WEIGHTS).exists() and index.exists():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            missing = [name for name in shards if not (folder / name).exists()]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return f"{INDEX} does not say which weight is in which file. {AGAIN}"
        if missing:
            return f"{INDEX} names {missing[0]}, which is missing. {AGAIN}"
    elif not (folder / WEIGHTS).exists() and files:
        return f"there is no file named {WEIGHTS} or {INDEX}, only {files[0].name}. {AGAIN}"
    torn = next(filter(_is_torn, files), None)
    return None if torn is None else f"{torn.name} is truncated, or not in safetensors' format. {AGAIN}"


def check_index(folder: Path) -> None:
    """Raise an error if the index of weights names files in other folders, or pickles, which transformers would load.

    Raises:
        InputError: the message names the first such file.
    """
    try:
        places = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return  # a broken index is reported when the weights are loaded
    for place in sorted(map(str, places)):
        if "/" in place or "\\" in place or not place.endswith(".safetensors"):
            raise InputError(
                f"{folder}: {INDEX} names {place}, but it may only name safetensors files in its own folder. {AGAIN}"
            )


def _first_lost(files: list[Path]) -> str | None:
    """Return a message about the first file that is a broken link or a Git LFS pointer; None if there is none."""
    for file in files:
        if file.is_symlink() and not file.exists():
            return f"{file.name} is a link to a file that is missing. {AGAIN}"
        if file.is_file():
            with file.open("rb") as opened:
                if opened.read(len(POINTER)) == POINTER:
                    return f"{file.name} is only a Git LFS pointer. Run `git lfs pull` in its repository."
    return None


def _is_torn(file: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            return False
    except (SafetensorError, OSError):
        return True


def why_no_tokenizer(place: Path, folder: Path, error: Exception) -> str:
    """Return why transformers could not load a tokenizer from the files in `place`, and what to do about it.

    `folder` is the checkpoint or bundle of these files; the message names it instead of `place`.
    """
    from tokenizers import Tokenizer, __version__

    what, why = "its tokenizer cannot be loaded", cause(error).replace(str(place), str(folder))
    files = [file for pattern in VOCABULARIES for file in sorted(place.glob(pattern))]
    if lost := _first_lost(files):
        return f"{what}: {lost}"
    if not files:
        return "the tokenizer is missing. Put tokenizer.json into this folder."
    if not (place / "tokenizer.json").exists():
        return f"{what}: {why}. Put tokenizer.json into this folder."
    try:
        Tokenizer.from_file(str(place / "tokenizer.json"))
    except Exception:  # the library tokenizers raises Exception itself
        return (
            f"{what}: tokenizers {__version__} cannot read tokenizer.json, which is broken or of a later release. "
            "Get the file again, or save it with this release."
        )
    return f"{what}: {why}. Compare tokenizer_config.json with the one of the base model."


def has_vocabulary(folder: Path) -> bool:
    """Return whether a folder has a file with a tokenizer's vocabulary."""
    return any(any(folder.glob(pattern)) for pattern in VOCABULARIES)


def cause(error: BaseException) -> str:
    """Return the first sentence of another library's error message, without colours and without a full stop.

    If the message is empty, return the name of the exception's class.
    """
    if isinstance(error, KeyError):
        return f"transformers does not have {error}"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    first = re.split(r"(?<=[.!?])\s|(?<!:)\n", plain, maxsplit=1)[0]
    return textwrap.shorten(first, 130, placeholder=" …").rstrip(".:") or type(error).__name__


def why_no_package(error: ImportError) -> str:
    """Return the name of the package whose absence caused an ImportError, and how to install it."""
    text = str(error).lower()
    for package in TOKENIZER_PACKAGES:
        if package in text:
            return f"it needs {package}, which is not installed. Install it with: {TOKENIZER_EXTRA}."
    listed = re.search(r"not found in your environment: ([\w ,.-]+?)\. |requires the ([\w.-]+) library", str(error))
    package = error.name or (listed and (listed[1] or listed[2])) or ""
    if not package:
        return why_not_imported(error)
    return f"it needs {package}, which is not installed. Install it with: pip install {package.replace(',', '')}."
