"""Loading of a checkpoint into PyTorch in float32, with a check that all weights are used and none is missing."""

from typing import TYPE_CHECKING

from toolchain.base.processors import cpu_threads
from toolchain.checkpoint.checks import check_finite, check_loaded, check_stored
from toolchain.checkpoint.faults import fault_of_class, why_no_model, why_no_package
from toolchain.checkpoint.sizes import check_size
from toolchain.errors import InputError, MachineError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from toolchain.checkpoint.model import Source

# Endings of the names of buffers that older transformers versions saved: the score of masked positions, -1e4 or -1e9.
MASK_VALUES = ".attn.masked_bias", ".attention.masked_bias"


def load_as(name: str, source: "Source", *, kind: str, attention: str | None = None) -> "PreTrainedModel":
    """Load the checkpoint with the auto class `name` of transformers; `kind` describes the model in error messages.

    As a side effect, PyTorch's number of threads is set to the number of processors that the process may use.

    Raises:
        InputError, MachineError: see `load_model`.
    """
    import torch
    import transformers

    silence()
    torch.set_num_threads(cpu_threads())  # torch's default ignores the CPU quota of a container
    auto = getattr(transformers, name)
    try:
        config = _config(source, attention)
        check_size(auto, config, source.config, stored=source.weight_bytes, trust_remote_code=source.trust_remote_code)
        model, info = auto.from_pretrained(
            source.folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=not source.allow_pickle or None,
            trust_remote_code=source.trust_remote_code,
            ignore_mismatched_sizes=True,  # check_loaded refuses them, with the name of the weight
            output_loading_info=True,
        )
    except ImportError as error:
        raise MachineError(f"{source.folder}: {why_no_package(error)}") from error
    except Exception as error:  # transformers raises various classes for broken files
        why = why_no_model(source.folder, source.config, error, trusted=source.trust_remote_code)
        raise InputError(f"{source.folder}: the checkpoint cannot be loaded as {kind}: {why}") from error
    missing = info["missing_keys"]
    if source.pooling:  # the class has a pooler layer, which embedding models neither train nor read
        missing = {name for name in missing if not name.startswith("pooler.")}
    if (missing or info["mismatched_keys"]) and (fault := fault_of_class(source.folder, source.config)):
        raise InputError(f"{source.folder}: {fault}")
    check_loaded(
        source.folder,
        body="" if source.pooling else f"{model.base_model_prefix}.",
        missing=missing,
        mismatched=info["mismatched_keys"],
        unused=_trained(model, info["unexpected_keys"]),
        ignored=source.ignore_unused,
        present=[name for name, _ in model.named_parameters()],
    )
    check_stored(source.folder, set(dict(model.named_parameters())), body=f"{model.base_model_prefix}.")
    check_finite(source.folder, model.named_parameters())
    model.text_pooling = source.pooling
    return model.eval()


def _config(source: "Source", attention: str | None) -> "PreTrainedConfig":
    """Return config.json as transformers reads it, with our own settings for how the model is run.

    Outputs are returned by name. Attention is computed as `attention` says; the implementation that config.json names
    may be missing on this machine. Feed-forward layers are not computed in chunks, because chunks do not change the
    logits, but fail on rows whose length they do not divide.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source.folder, trust_remote_code=source.trust_remote_code)
    config.return_dict, config.chunk_size_feed_forward, config.output_attentions = True, 0, False
    config._attn_implementation = attention  # with None, transformers chooses and ignores config.json
    return config


def _trained(model: "PreTrainedModel", unused: set[str]) -> set[str]:
    """Return the unused weights of a checkpoint that may have been part of the trained model.

    Two kinds are left out. Old checkpoints have buffers that transformers now computes, such as GPT-2's masks. They may
    also have the weights of a pooler, which a bare encoder has, but a class such as RobertaForSequenceClassification
    does not.
    """
    import torch

    unused = unused - {name for name, _ in model.named_buffers()}
    unused = {name for name in unused if not name.endswith(MASK_VALUES)}
    if not unused:
        return unused
    try:
        with torch.device("meta"):
            encoder = type(model.base_model)(model.config)
    except Exception:  # the class may be a checkpoint's own, with other arguments
        return unused
    known = {f"{model.base_model_prefix}.{name}" for name in encoder.state_dict()}
    return unused - known


def silence() -> None:
    """Turn off transformers' progress bars and warnings; it still logs errors."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
