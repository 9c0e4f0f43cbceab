"""Tiny random causal language models."""

from pathlib import Path
from typing import Any

from tests.tiny import HEADS, HIDDEN, LAYERS, new_tokenizer, vocabulary


def make_causal(folder: Path, kind: str, *, positions: int = 96, **changes: Any) -> Path:
    """Save a tiny GPT-2, Llama or Mistral whose greedy text varies, and its tokenizer without a padding token."""
    import torch
    import transformers

    torch.manual_seed(3)
    common = {"vocab_size": len(vocabulary("distilbert")), "eos_token_id": 3, "bos_token_id": None}
    sizes = {
        "gpt2": {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_positions": positions},
        "llama": {
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 1,
            "intermediate_size": 2 * HIDDEN,
            "max_position_embeddings": positions,
        },
    }["gpt2" if kind == "gpt2" else "llama"]
    stem = {"gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral"}[kind]
    config = getattr(transformers, f"{stem}Config")(**(common | sizes | {"initializer_range": 0.3} | changes))
    auto = transformers.AutoModelForCausalLM
    auto.from_config(config).save_pretrained(folder)
    tokenizer = new_tokenizer("distilbert")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder
