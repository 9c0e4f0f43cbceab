"""Opens a causal language model in PyTorch, in float32, and counts the bytes that a decode step reads."""

import functools
from typing import TYPE_CHECKING, Any

from toolchain.checkpoint.model import Source
from toolchain.checkpoint.weights import load_as
from toolchain.errors import InputError, MachineError, first_line
from toolchain.generate.generator import Generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Endings of the class names of models that predict the next token.
CAUSAL = ("ForCausalLM", "LMHeadModel")


def open_torch(source: Source, *, device: str) -> Generator:
    """Return a checkpoint of a causal language model as a generator, in float32. For errors, see `load_causal`."""
    from toolchain.generate.decode_torch import generate

    model = load_causal(source, device=device)
    run, kept, read = functools.partial(generate, model), positions(model), weight_bytes(model)
    return Generator(source.name, "torch", device, "fp32", source.tokenizer, kept, read, run)


def load_causal(source: Source, *, device: str) -> "PreTrainedModel":
    """Load a causal language model in float32 and in evaluation mode onto a device.

    Raises:
        InputError: it is another kind of model, a file is broken, or weights do not fit the model.
        MachineError: its code needs a package that is not installed, or the device cannot take the model.
    """
    check_causal(source)
    return _moved(load_as("AutoModelForCausalLM", source, kind="a causal language model"), device)


def _moved(model: "PreTrainedModel", device: str) -> "PreTrainedModel":
    try:
        return model.to(device)
    except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one, too
        raise MachineError(
            f"--device {device}: the model cannot be moved to it ({first_line(error)}). Choose another device."
        ) from error


def check_causal(source: Source) -> None:
    """Refuse a checkpoint whose config.json states another kind of model.

    Raises:
        InputError: the checkpoint is refused. The message names the class of its model.
    """
    names = [str(name) for name in source.config.get("architectures") or []]
    if not any(name.endswith(CAUSAL) for name in names):
        said = f"architectures is {names[0]}" if names else "config.json names no architecture"
        raise InputError(
            f"{source.folder}: this is not a causal language model: {said}. Give a checkpoint whose class ends in "
            "ForCausalLM or LMHeadModel. To label texts with a classifier, use `toolchain predict`."
        )
    if source.config.get("is_encoder_decoder"):
        raise InputError(f"{source.folder}: the model has an encoder and a decoder. Give a decoder-only model.")


def weight_bytes(model: "PreTrainedModel") -> int:
    """Return the bytes of the weights that a decode step reads.

    A step reads only one row of an embedding table for each token. So a table is counted only if another module
    multiplies by it, as a tied output head does.
    """
    import torch

    read: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        if not isinstance(module, torch.nn.Embedding):
            read |= {id(weight): weight for weight in module.parameters(recurse=False)}
    return sum(weight.nbytes for weight in read.values())


def positions(model: "PreTrainedModel") -> int | None:
    """Return the number of positions (tokens) that the model was made for; None if config.json does not state it."""
    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found


def cache_bytes(cache: Any) -> int | None:  # a Cache of transformers, or None
    """Return the bytes of the keys and values of one position of one row; None if there is no cache."""
    if cache is None:
        return None
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return int(sum(tensor.nbytes // (tensor.shape[0] * tensor.shape[-2]) for tensor in tensors))
