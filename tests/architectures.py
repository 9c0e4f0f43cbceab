"""Tiny random classifiers of many architectures of transformers, with the tokenizer of tests/tiny.py."""

import json
from pathlib import Path
from typing import Any

from tests import tiny

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "bos_token_id": 2, "eos_token_id": 3}

# What an architecture's configuration needs beside SIZES, in names of its own.
OWN: dict[str, dict[str, Any]] = {
    "Albert": {"embedding_size": 32},
    "Bart": BART,
    "ConvBert": {"embedding_size": 32, "head_ratio": 1, "conv_kernel_size": 3},
    "DebertaV2": {"position_biased_input": False, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "Electra": {"embedding_size": 32},
    "GPT2": {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "bos_token_id": 2, "eos_token_id": 3},
    "Llama": {"num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3},
    "Longformer": {"attention_window": [4, 4]},
    "Mixtral": {"num_key_value_heads": 2, "num_local_experts": 4, "bos_token_id": 2, "eos_token_id": 3},
    "MobileBert": {"embedding_size": 32, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "ModernBert": {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    "RemBert": {"input_embedding_size": 16, "bos_token_id": 2, "eos_token_id": 3},
    "Xmod": {"languages": ["en"], "default_language": "en"},
}

# Architectures whose positions start after the padding id, with the padding id 1 of RoBERTa.
OFFSET = ("Roberta", "XLMRoberta", "Camembert", "Data2VecText", "RobertaPreLayerNorm", "MPNet", "Longformer", "Xmod")


def new_model(kind: str, *, labels: tuple[str, ...] = ("negative", "positive"), **changes: Any) -> Any:
    """Return a model of the class KINDForSequenceClassification with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    values = SIZES | {"vocab_size": len(tiny.vocabulary("bert")), "pad_token_id": int(kind in OFFSET)}
    values |= {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    values |= OWN.get(kind, {}) | changes
    head = values.pop("head", "ForSequenceClassification")
    return getattr(transformers, kind + head)(getattr(transformers, f"{kind}Config")(**values)).eval()


def make(folder: Path, kind: str, *, made: Any = None, **changes: Any) -> Path:
    """Save a model and a tokenizer of our own words, whose padding id is the model's, into `folder` and return it."""
    (made or new_model(kind, **changes)).save_pretrained(folder)
    tiny.new_tokenizer("roberta" if kind in OFFSET else "bert").save_pretrained(folder)
    return folder


def edit(folder: Path, file: str = "config.json", **changes: Any) -> Path:
    """Change keys of a JSON file; None removes one."""
    values = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return folder


def rewrite_weights(folder: Path, change: Any) -> Path:
    """Let `change` change the dictionary of a checkpoint's weights."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
