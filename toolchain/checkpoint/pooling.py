"""Pooling: it makes the vector of a text from the vectors of its tokens, as sentence-transformers does.

A folder of sentence-transformers has `modules.json`, which lists the folder of the encoder, the folder with the
configuration of the pooling, and perhaps a normalisation.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.base.files import open_file
from toolchain.checkpoint.checks import is_headless, says_classifier
from toolchain.data.tasks import POOLINGS
from toolchain.errors import InputError

if TYPE_CHECKING:
    import torch

MODULES = "modules.json"

# Pooling in a task's TOML -> the key that is true for it in the pooling's config.json of sentence-transformers.
MODES = dict(zip(POOLINGS, ("pooling_mode_mean_tokens", "pooling_mode_cls_token"), strict=True))

# The least length that a vector is divided by. The vector of a row of padding has the length 0; the vectors of texts
# are far longer. A much smaller value would lose precision in float16, whose smallest normal number is 6.1e-5.
LEAST_LENGTH = 1e-4


@dataclass(frozen=True)
class Pooling:
    """How the vector of a text is made from the vectors of its tokens.

    `mode` is "mean", the mean over all tokens except padding, or "cls", the vector of the first token. With
    `normalize`, the vector is then scaled to length 1.
    """

    mode: str
    normalize: bool

    def __call__(self, hidden: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
        """Return the vectors of texts, [batch, size].

        `hidden` are the vectors of their tokens, [batch, sequence, size], and `mask` is the attention mask,
        [batch, sequence].
        """
        if self.mode == "cls":
            found = hidden[:, 0]
        else:
            real = mask.to(hidden.dtype)
            # Each vector is weighted before the sum, because the sum of many vectors may exceed the range of float16.
            share = real / real.sum(1, keepdim=True).clamp(min=1)
            found = (hidden * share[:, :, None]).sum(1)
        if not self.normalize:
            return found
        length: torch.Tensor = (found * found).sum(1, keepdim=True).sqrt()
        return found / length.clamp(min=LEAST_LENGTH)


def read_modules(folder: Path) -> tuple[Path, Pooling | None]:
    """Return the folder of the encoder and the pooling that modules.json describes; without it, `folder` and None.

    Raises:
        InputError: a file is broken, or describes something else than an encoder, a pooling by the mean or by the first
            token, and a normalisation.
    """
    file, config = folder / MODULES, folder / "config.json"
    if not file.is_file() or (config.is_file() and says_classifier(_read(config))):  # a cross-encoder has it too
        return folder, None
    modules = _read(file)
    if not isinstance(modules, list) or not all(isinstance(one, dict) for one in modules):
        raise InputError(f"{file}: this is not a list of modules. Save the model again with sentence-transformers.")
    kinds = [str(one.get("type", "")).rpartition(".")[2] for one in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise InputError(
            f"{file}: its modules are {', '.join(kinds)}. Give a model with the modules Transformer and Pooling, and "
            "perhaps Normalize, only."
        )
    places = [str(one.get("path") or "") for one in modules[:2]]
    if outside := [place for place in places if not (folder / place).resolve().is_relative_to(folder.resolve())]:
        raise InputError(f"{file}: the path {outside[0]!r} of a module leads out of the folder. Get the model again.")
    encoder, pooling = (folder / place for place in places)
    _check_encoder(folder, encoder)
    return encoder, Pooling(_mode(pooling / "config.json"), "Normalize" in kinds)


def choose_pooling(
    folder: Path, config: dict[str, Any], asked: Pooling | None, stated: Pooling | None
) -> Pooling | None:  # the keys of `config` depend on the architecture
    """Return the pooling to use for a checkpoint; None for a model with a head, such as a classifier.

    Args:
        folder: the checkpoint, for error messages.
        config: its config.json.
        asked: the pooling in the task; None if it has none.
        stated: the pooling in the checkpoint's modules.json; None if it has none.

    Raises:
        InputError: the task has a pooling, but the checkpoint has a head or another pooling.
    """
    if asked and (named := next(iter(config.get("architectures") or []), "")) and not (stated or is_headless(named)):
        raise InputError(
            f"{folder}: the task has a pooling, but the checkpoint is {named}, which does not return vectors. "
            "Remove pooling from the task, or give an encoder without a head."
        )
    if asked and stated and asked != stated:
        raise InputError(
            f"{folder / MODULES}: the checkpoint has {stated}, but the task has {asked}. Remove pooling and normalize "
            "from the task."
        )
    return asked or stated


def read_limit(folder: Path) -> int | None:
    """Return the truncation length in tokens from sentence_bert_config.json in the encoder's folder; None without one.

    Raises:
        InputError: the file is not JSON.
    """
    file = folder / "sentence_bert_config.json"
    stated = _read(file).get("max_seq_length") if file.is_file() else None
    return stated if isinstance(stated, int) and stated > 0 else None


def _mode(file: Path) -> str:
    """Return the mode of pooling, a key of MODES, from the configuration file of the pooling.

    Raises:
        InputError: the file names another mode, or several.
    """
    stated = _read(file)
    named = stated.get("pooling_mode")
    chosen = [named] if named else [key for key, value in stated.items() if key.startswith("pooling_mode") and value]
    found = [mode for mode, key in MODES.items() if chosen in ([mode], [key])]
    if not found:
        shown = ", ".join(str(one).removeprefix("pooling_mode_") for one in chosen) or "none"
        raise InputError(
            f"{file}: the mode of pooling is {shown}. Give a model that pools by the mean or by the first token (cls)."
        )
    return found[0]


def _check_encoder(folder: Path, encoder: Path) -> None:
    """Raise an error if sentence-transformers would change texts before it tokenizes them, because a bundle does not.

    Raises:
        InputError: sentence-transformers adds a prompt to each text, or converts it to lower case.
    """
    file = folder / "config_sentence_transformers.json"
    if file.is_file() and (prompt := _read(file).get("default_prompt_name")):
        raise InputError(
            f"{file}: sentence-transformers begins each text with the prompt {prompt!r}, but a bundle would not. Set "
            "default_prompt_name to null, and give texts that begin with the prompt."
        )
    file = encoder / "sentence_bert_config.json"
    if file.is_file() and _read(file).get("do_lower_case"):
        raise InputError(
            f"{file}: do_lower_case is true, but a bundle would not convert texts to lower case. Add a Lowercase "
            "normalizer to tokenizer.json, and set do_lower_case to false."
        )


def _read(file: Path) -> Any:
    """Return the content of a JSON file; it must be an object, except in modules.json.

    Raises:
        InputError: the file is missing, not JSON, or not an object.
    """
    try:
        with open_file(file) as opened:
            found = json.loads(opened.read().decode())
    except FileNotFoundError:
        raise InputError(f"{file}: this file is missing. Save the model again with sentence-transformers.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file}: this file is not JSON. Save the model again with sentence-transformers.") from None
    if file.name != MODULES and not isinstance(found, Mapping):
        raise InputError(f"{file}: this is not a JSON object. Save the model again with sentence-transformers.")
    return found
