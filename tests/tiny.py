"""Tiny random checkpoints: real architectures, real file formats, nothing learnt."""

import json
from pathlib import Path
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEXT = (
    "a an the this that it i you we they he she is was are were be been has had do did not never no very too so "
    "quite rather and or but while when if then of in on at to from by with for about film movie story plot scene "
    "actor music voice camera ending book meal soup room view road city dog cat child friend day night time year "
    "good bad great poor fine dull bright dark warm cold funny sad slow fast long short new old love hate like "
    "see feel think make give take"
)
WORDS = TEXT.split()
PIECES = (*".,!?'\"-0123456789", *"abcdefghijklmnopqrstuvwxyz", "##s", "##ed", "##ing", "##ly", "##er")
HIDDEN, LAYERS, HEADS = 64, 2, 2


def make_checkpoint(
    folder: Path,
    model_type: str = "distilbert",
    *,
    labels: int | tuple[str, ...] = 2,
    seed: int = 0,
    dtype: str = "float32",
    safe: bool = True,
    pooling: str | None = None,
    kind: str = "Sequence",
    **config: Any,
) -> Path:
    """Save a tiny sequence classifier and its tokenizer into `folder` and return it.

    `kind` is that of its classification, Sequence or Token.
    With `pooling`, `mean` or `cls`, it is an encoder with normalised vectors, as sentence-transformers saves one.
    `labels` is their number (1: regression; 2: negative, positive) or their names; `safe=False` writes pickled
    weights; `config` overrides keys of the model's configuration.
    """
    import torch

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = new_model(model_type, labels, kind=kind, **config)
    with torch.no_grad():  # biases and LayerNorms of a new model are zero and one
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape), alpha=0.2)
    model = model.to(getattr(torch, dtype)).eval()
    if pooling:
        model = model.base_model
        _save_modules(folder, pooling)
    model.save_pretrained(folder)
    if not safe:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    new_tokenizer(model_type).save_pretrained(folder)
    return folder


def _save_modules(folder: Path, pooling: str) -> None:
    names = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"name": str(at), "path": f"{at}_{name}" if at else "", "type": f"sentence_transformers.models.{name}"}
        for at, name in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    keys = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    modes = {key: mode == pooling for mode, key in keys.items()}
    (folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": HIDDEN, **modes}))


def export_checkpoint(folder: Path, model_type: str, **config: Any) -> Path:
    """Save such a checkpoint with its float32 graph into `folder`, and return the graph's file."""
    from toolchain.checkpoint.export import export
    from toolchain.checkpoint.model import find_model

    export(find_model(str(make_checkpoint(folder, model_type, **config))), folder / "model.onnx")
    return folder / "model.onnx"


def new_model(model_type: str, labels: int | tuple[str, ...], *, kind: str = "Sequence", **changes: Any) -> Any:
    """Return an untrained classifier whose logits differ visibly from text to text."""
    import transformers

    names = {1: ("score",), 2: ("negative", "positive")}.get(labels) if isinstance(labels, int) else labels
    names = names or tuple(f"class {index}" for index in range(int(labels)))
    sizes = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * HIDDEN,
    }
    if model_type == "distilbert":
        sizes = {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 2 * HIDDEN}
    padded = model_type == "roberta"  # whose positions start behind the padding id
    values = {
        **sizes,
        "vocab_size": len(vocabulary(model_type)),
        "max_position_embeddings": 514 if padded else 512,
        "type_vocab_size": 1 if padded else 2,
        "pad_token_id": 1 if padded else 0,
        "initializer_range": 0.15,
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }
    if model_type == "distilbert":
        del values["type_vocab_size"]
    stem = {"distilbert": "DistilBert", "bert": "Bert", "roberta": "Roberta"}[model_type]
    made = getattr(transformers, f"{stem}Config")(**(values | changes))
    return getattr(transformers, f"{stem}For{kind}Classification")(made)


def vocabulary(model_type: str) -> dict[str, int]:
    """Return token -> id; RoBERTa has its padding at 1, the others at 0."""
    special = list(SPECIAL)
    if model_type == "roberta":
        special[:3] = ["[CLS]", "[PAD]", "[UNK]"]
    return {token: index for index, token in enumerate(dict.fromkeys([*special, *WORDS, *PIECES]))}


def new_tokenizer(model_type: str) -> Any:
    """Return a lower-case WordPiece tokenizer of our own words; unknown ones become [UNK]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary(model_type)
    tokenizer = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    second = 1 if model_type == "bert" else 0
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B:{second} [SEP]:{second}",
        special_tokens=[(token, tokens[token]) for token in ("[CLS]", "[SEP]")],
    )
    columns = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"] if second else columns,
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL},
    )
