"""The check of the values in a config.json: their types, and the sizes that they describe.

transformers creates as many layers and as large tables as config.json says, whatever weights there are. So the sizes
are compared with the files of weights before any memory is allocated.
"""

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.checkpoint.checks import AGAIN
from toolchain.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

# Keys of config.json that are read before transformers reads the file -> the type of the value, and its name in JSON.
FORMS = {
    "model_type": (str, "string"),
    "architectures": (list, "array"),
    "auto_map": (dict, "object"),
    "pruned_heads": (dict, "object"),
    "problem_type": (str, "string"),
}

# Pattern of keys -> the largest value allowed, several times that of any published encoder. From these values
# transformers makes lists before it makes the first weight, so `check_size` would find a huge value too late.
LISTS = {r"(\w+_)?layers?": 1_000, "num_labels": 1_000_000}
# The largest value allowed for other keys. Whole numbers are mostly sizes of tensors, which PyTorch stores in 64 bits.
MOST = 2**63 - 1

# Elements allowed in buffers that a model computes and no file contains, such as position ids: 0.5 GB in int64.
BUFFERS = 2**26

# How many of the numbers in config.json a message names.
SHOWN = 3


def check_values(file: Path, config: dict[str, Any]) -> None:  # the keys depend on the architecture
    """Raise an error if a config.json has a value of a wrong type, or a number so large that loading would not end.

    Raises:
        InputError: a key in FORMS has a value of another type, a key of id2label is not an index, or a whole number is
            larger than its limit in LISTS or than MOST.
    """
    for key, (form, form_name) in FORMS.items():
        if not isinstance(config.get(key), form | None):
            raise InputError(f"{file}: {key} is {config[key]!r}, but it must be a JSON {form_name}. {AGAIN}")
    labels = config.get("id2label") or {}
    if not isinstance(labels, dict) or not all(str(key).isdecimal() for key in labels):
        raise InputError(f"{file}: id2label is {labels}. Its keys must be 0, 1, 2 and so on.")
    for key, value in _numbers(config):
        most = next((most for pattern, most in LISTS.items() if re.fullmatch(pattern, key)), MOST)
        if value > most:
            raise InputError(f"{file}: {key} is {value!r:.50}, but at most {most:,} is allowed. {AGAIN}")


def check_size(
    auto: Any,  # auto classes have no public base class
    config: "PreTrainedConfig",
    stated: dict[str, Any],  # the keys depend on the architecture
    *,
    stored: int,
    trust_remote_code: bool,
) -> None:
    """Raise an error if config.json describes a model with more weights than the files of its checkpoint can contain.

    Args:
        auto: the auto class of transformers that makes the model, such as AutoModel.
        config: config.json as transformers reads it.
        stated: config.json as a plain JSON object.
        stored: size of the files of weights in bytes. A weight takes at least one byte.
        trust_remote_code: whether the checkpoint's own code may run.

    Raises:
        InputError: the message names the largest numbers in config.json.
    """
    import torch
    from torch.nn.modules import module as hooks

    too_large = InputError(
        f"config.json describes more weights than the {stored:,} bytes of the checkpoint's files can contain: "
        f"{_largest(stated)}. {AGAIN}"
    )

    handles = (
        hooks.register_module_parameter_registration_hook(_counter(stored, too_large)),
        hooks.register_module_buffer_registration_hook(_counter(stored + BUFFERS, too_large)),
    )
    try:
        with torch.device("meta"):  # where tensors take no memory
            auto.from_config(copy.deepcopy(config), trust_remote_code=trust_remote_code)
    except InputError:
        raise
    except Exception as error:  # any class; if no number is too large, loading the model reports it
        if any(value > max(stored, BUFFERS) for _, value in _numbers(stated)):
            raise too_large from error
    finally:
        for handle in handles:
            handle.remove()


def _counter(left: int, error: InputError) -> Callable[..., None]:
    """Return a PyTorch hook that raises `error` when the tensors registered so far have more than `left` elements."""

    def registered(_: object, name: str, tensor: "torch.Tensor | None") -> None:
        nonlocal left
        left -= 0 if tensor is None else tensor.numel()
        if left < 0:
            raise error

    return registered


def _numbers(config: dict[str, Any]) -> Iterator[tuple[str, int]]:  # the keys depend on the architecture
    """Yield (key, number) for each whole number in a JSON object, including nested objects and lists."""
    left: list[tuple[str, Any]] = list(config.items())
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += ((key, one) for one in value)
        elif isinstance(value, int):
            yield key, value


def _largest(config: dict[str, Any]) -> str:  # the keys depend on the architecture
    found = sorted(_numbers(config), key=lambda one: -one[1])[:SHOWN]
    return ", ".join(f"{key} is {value}" for key, value in found)
