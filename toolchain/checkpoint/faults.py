"""Why transformers does not load a checkpoint or its tokenizer, in our words: asked only after it failed.

Its own messages name a byte of a header or a variant of an enumeration, and their advice is for another caller.
"""

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from toolchain.checkpoint.checks import AGAIN, OWN_CODE, types_of, types_of_classifiers
from toolchain.errors import InputError, why_not_imported

# The first bytes of a file that Git LFS puts in the place of a large one.
POINTER = b"version https://git-lfs"

# The file of weights, and the one that says which weight is in which of several.
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

# Patterns of the files of a tokenizer that have its tokens.
VOCABULARIES = ("tokenizer.json", "vocab*", "*.model")

# Packages that some tokenizers need, and the extra of this project that has them.
TOKENIZER_PACKAGES = ("sentencepiece", "tiktoken")
TOKENIZER_EXTRA = "pip install 'encoder-toolchain[tokenizers]'"


def why_no_model(
    folder: Path,
    config: dict[str, Any],  # config.json of any architecture
    error: Exception,
    *,
    trusted: bool,
) -> str:
    """Return why a model was not loaded, and what to do; `trusted` says whether its own code was allowed to run."""
    if fault := fault_of_class(folder, config) or _fault_of_type(config) or _fault_of_weights(folder):
        return fault
    if isinstance(error, InputError):
        return str(error)
    if "auto_map" in config and not trusted:
        return f"{cause(error)}. {OWN_CODE}"
    if config.get("model_type") in types_of_classifiers():  # so it is not for want of a head
        return f"{cause(error)}. Fix config.json, or get the checkpoint again."
    return f"{cause(error)}. Give a checkpoint with a sequence classification head."


def fault_of_class(folder: Path, config: dict[str, Any]) -> str | None:  # config.json of any architecture
    """Return that the weights fit the class in `architectures` and not `model_type`, by which a model is made, or None.

    Asked only where the weights do not fit the model that was made.
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
    except Exception:  # each class raises another one; what is said without an answer is still true
        return None
    what = "is missing" if kind is None else f"is {kind}"
    return (
        f"config.json: model_type {what}, and architectures names {stated}, whose weights these are. "
        f'Set model_type to "{types[0]}".'
    )


def _stored(folder: Path) -> set[str]:
    """Return the names of the weights in the files that are read."""
    from safetensors import safe_open

    found: set[str] = set()
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "np") as opened:
            found |= set(opened.keys())
    return found


def _fault_of_type(config: dict[str, Any]) -> str | None:  # config.json of any architecture
    from transformers import CONFIG_MAPPING, __version__

    kind = config.get("model_type")
    if "auto_map" in config or kind in CONFIG_MAPPING:
        return None
    if kind is None:
        return f"config.json has no model_type. {AGAIN}"
    return f"transformers {__version__} does not have the model type {kind}. Give a checkpoint of another one."


def _fault_of_weights(folder: Path) -> str | None:
    """Return which file of weights is lost, torn, or under a name that is not read; None if there is none."""
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
            return f"{INDEX} names {missing[0]}, which is not there. {AGAIN}"
    elif not (folder / WEIGHTS).exists() and files:
        return f"there is no file named {WEIGHTS} or {INDEX}, only {files[0].name}. {AGAIN}"
    torn = next(filter(_is_torn, files), None)
    return None if torn is None else f"{torn.name} is cut off, or not in safetensors' format. {AGAIN}"


def check_index(folder: Path) -> None:
    """Refuse an index of weights that lie elsewhere than beside it, or in pickles, which transformers would load.

    Raises:
        InputError: naming the place.
    """
    try:
        places = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return  # said where it is loaded
    for place in sorted(map(str, places)):
        if "/" in place or "\\" in place or not place.endswith(".safetensors"):
            raise InputError(f"{folder}: {INDEX} names {place}, not a file of safetensors beside it. {AGAIN}")


def _first_lost(files: list[Path]) -> str | None:
    """Return which of the files has no contents, and what to do; None if all have."""
    for file in files:
        if file.is_symlink() and not file.exists():
            return f"{file.name} is a link to a file that is not there. {AGAIN}"
        if file.is_file():
            with file.open("rb") as opened:
                if opened.read(len(POINTER)) == POINTER:
                    return f"{file.name} is a pointer of Git LFS, not the file. Run `git lfs pull` in its repository."
    return None


def _is_torn(file: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np"):
            return False
    except (SafetensorError, OSError):
        return True


def why_no_tokenizer(place: Path, folder: Path, error: Exception) -> str:
    """Return why a tokenizer was not loaded from the files in `place`, and what to do; the text names `folder`."""
    from tokenizers import Tokenizer, __version__

    what, why = "its tokenizer cannot be loaded", cause(error).replace(str(place), str(folder))
    files = [file for pattern in VOCABULARIES for file in sorted(place.glob(pattern))]
    if lost := _first_lost(files):
        return f"{what}: {lost}"
    if not files:
        return "has no tokenizer. Put tokenizer.json there."
    if not (place / "tokenizer.json").exists():
        return f"{what}: {why}. Put tokenizer.json there."
    try:
        Tokenizer.from_file(str(place / "tokenizer.json"))
    except Exception:  # the library raises no other class
        return (
            f"{what}: tokenizers {__version__} cannot read tokenizer.json, which is broken or of a later release. "
            "Get it again, or save it with this release."
        )
    return f"{what}: {why}. Compare tokenizer_config.json with that of its base model."


def has_vocabulary(folder: Path) -> bool:
    """Return whether a folder has a file of a tokenizer."""
    return any(any(folder.glob(pattern)) for pattern in VOCABULARIES)


def cause(error: BaseException) -> str:
    """Return the first sentence of another library's message, without its advice and colours, or the error's class."""
    if isinstance(error, KeyError):
        return f"transformers does not have {error}"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    first = re.split(r"(?<=[.!?])\s|(?<!:)\n", plain, maxsplit=1)[0]
    return textwrap.shorten(first, 130, placeholder=" …").rstrip(".:") or type(error).__name__


def why_no_package(error: ImportError) -> str:
    """Return which package an ImportError is about, and how to install it."""
    text = str(error).lower()
    for package in TOKENIZER_PACKAGES:
        if package in text:
            return f"needs {package}, which is not installed. Install it with: {TOKENIZER_EXTRA}."
    listed = re.search(r"not found in your environment: ([\w ,.-]+?)\. |requires the ([\w.-]+) library", str(error))
    package = error.name or (listed and (listed[1] or listed[2])) or ""
    if not package:
        return why_not_imported(error)
    return f"needs {package}, which is not installed. Install it with: pip install {package.replace(',', '')}."
