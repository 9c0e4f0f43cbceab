"""Small models of several labels a row and of tags, trained on the demo's templates, and what INT8 costs them.

    python benchmarks/heads.py multilabel -o DIR

It writes DIR/model, DIR/train.jsonl, DIR/validation.jsonl and DIR/task.toml, builds an INT8 bundle with `auto`, and
prints the main metric of FP32, of the graph for TensorRT and of the graph for CPUs. The templates know what stands in
each slot: names of people, towns and things. The names of validation rows do not occur in training, one
name in thirty or so looks like one of another kind, and some words are misspelt. Training takes about a minute.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from toolchain.data.demo.make import texts, train

# Slot of a template -> what it names, in tags and as a label of a row.
KINDS = {"person": "PERSON", "town": "TOWN", "rival": "THING"}
LABELS = tuple(KINDS.values())

# How names of a kind end; more than one kind has some of them.
ENDINGS = {
    "person": ("a", "o", "in", "elle", "is"),
    "town": ("ton", "ford", "burg", "in", "a"),
    "rival": ("ex", "matic", "o", "is", "ton"),
}
SYLLABLES = [first + last for first in "bdfghk" for last in ("an", "or", "el")]

# The share of names that may have the ending of another kind, and that of misspelt words.
NOISE = 0.03
TYPOS = 0.05

ROWS = {"train": 5000, "validation": 1500}
SIZES = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 256, "max_position_embeddings": 128}
VOCABULARY, EPOCHS, BATCH, RATE = 1200, 9, 32, 2e-3

# A name in a filled template, between signs that no template has.
MARKED = re.compile("\x02(\\w+)\x03([^\x04]*)\x04")
WORD = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")


class Row(NamedTuple):
    """The words of a review, the IOB2 tag of each, and which kinds of names it has."""

    words: list[str]
    tags: list[str]
    labels: list[str]


class _Filler(texts._Filler):
    """Fills the slots of KINDS with marked names, which training and validation do not share, unlike templates."""

    def __init__(self, rng: random.Random, split: str) -> None:
        super().__init__(rng, "train", rng.choice((0, 1)))
        self._names_of = split

    def _word(self, slot: re.Match[str]) -> str:
        kind = slot.group(2)
        if kind not in KINDS:
            return super()._word(slot)
        drawn = self._rng.choice(list(ENDINGS)) if self._rng.random() < NOISE else kind
        return f"\x02{KINDS[kind]}\x03{self._name(drawn)}\x04"

    def _name(self, kind: str) -> str:
        while True:
            stem = self._rng.choice(SYLLABLES), self._rng.choice(SYLLABLES)
            # A third of the stems are those of validation; a stem has one place, whatever the order of draws.
            held = (SYLLABLES.index(stem[0]) + 5 * SYLLABLES.index(stem[1])) % 3 == 0
            if held == (self._names_of == "validation"):
                break
        name = "".join(stem).capitalize() + self._rng.choice(ENDINGS[kind])
        return f"{name} {self._rng.choice('ABCDEFGH')}" if self._rng.random() < 0.3 else name


def rows_of(split: str, count: int, seed: int = 0) -> list[Row]:
    """Return different rows of a split ("train" or "validation"); the same seed gives the same rows."""
    rng, found = random.Random(f"heads {split} {seed}"), {}
    while len(found) < count:
        filler = _Filler(rng, split)
        parts = [filler.template(), *filler.clutter(rng.choice((0, 1, 1, 2)))]
        row = _row(texts._polished(filler.fill(" ".join(rng.sample(parts, len(parts))))), rng)
        found[" ".join(row.words)] = row
    return list(found.values())


def _row(filled: str, rng: random.Random) -> Row:
    tokens: list[tuple[str, str]] = []
    start = 0
    for name in MARKED.finditer(filled):
        tokens += [(word, "O") for word in WORD.findall(filled[start : name.start()])]
        tokens += [(word, f"{'I' if at else 'B'}-{name[1]}") for at, word in enumerate(name[2].split())]
        start = name.end()
    tokens += [(word, "O") for word in WORD.findall(filled[start:])]
    tags = [tag for _, tag in tokens]
    typed = [texts._mistyped(rng, word) if rng.random() < TYPOS else word for word, _ in tokens]
    return Row(typed, tags, [kind for kind in LABELS if f"B-{kind}" in tags])


def make(head: str, folder: Path, seed: int = 0) -> None:
    """Write data, task and a trained checkpoint of a head, "multilabel" or "tokens", into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = {split: rows_of(split, count, seed) for split, count in ROWS.items()}
    for split, rows in splits.items():
        lines = (
            {"words": row.words, "tags": row.tags}
            if head == "tokens"
            else {"text": " ".join(row.words), "labels": row.labels}
            for row in rows
        )
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text, label = ("words", "tags") if head == "tokens" else ("text", "labels")
    (folder / "task.toml").write_text(f'head = "{head}"\ntext_columns = ["{text}"]\nlabel_column = "{label}"\n')
    # Names are left out, so that those of training are cut into pieces as those of validation are.
    sentences = [
        " ".join(word for word, tag in zip(row.words, row.tags, strict=True) if tag == "O") for row in splits["train"]
    ]
    tokenizer = train.train_tokenizer(sentences, VOCABULARY)
    tokenizer.model_max_length = SIZES["max_position_embeddings"]
    model = _trained(head, splits["train"], tokenizer, seed)
    tokenizer.save_pretrained(folder / "model")
    model.half().save_pretrained(folder / "model")


def _trained(head: str, rows: list[Row], tokenizer: Any, seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    model = _new_model(head, len(tokenizer)).train()
    rng = random.Random(seed)
    batches = [batch for _ in range(EPOCHS) for batch in _batches(rng.sample(rows, len(rows)), head, tokenizer)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=train.ADAM_BETAS, weight_decay=train.WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=len(batches) + 1, pct_start=0.1)
    for batch in batches:
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
    return model.eval()


def _new_model(head: str, vocabulary: int) -> Any:
    import transformers

    tags = ["O", *(f"{prefix}-{kind}" for kind in LABELS for prefix in "BI")]
    names = tags if head == "tokens" else list(LABELS)
    config = transformers.DistilBertConfig(
        vocab_size=vocabulary,
        **SIZES,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        initializer_range=train.INITIAL_SPREAD,
        pad_token_id=0,
        id2label=dict(enumerate(names)),
        label2id={name: at for at, name in enumerate(names)},
        problem_type=None if head == "tokens" else "multi_label_classification",
    )
    kind = "Token" if head == "tokens" else "Sequence"
    model = getattr(transformers, f"DistilBertFor{kind}Classification")(config)
    for layer in model.distilbert.transformer.layer:
        for linear in (layer.attention.q_lin, layer.attention.k_lin):
            linear.weight.data.normal_(0.0, train.INITIAL_ATTENTION_SPREAD)
    return model


def _batches(rows: list[Row], head: str, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Yield batches; of a word, its first piece alone has a tag that counts."""
    import torch

    tags = ["O", *(f"{prefix}-{kind}" for kind in LABELS for prefix in "BI")]
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        split = [row.words for row in some]
        encoded = tokenizer(split, is_split_into_words=True, padding=True, truncation=True, return_tensors="pt")
        if head == "tokens":
            labels = torch.full(encoded["input_ids"].shape, -100)
            for at, row in enumerate(some):
                seen = set()
                for place, word in enumerate(encoded.word_ids(at)):
                    if word is not None and word not in seen:
                        seen.add(word)
                        labels[at, place] = tags.index(row.tags[word])
        else:
            labels = torch.tensor([[float(kind in row.labels) for kind in LABELS] for row in some])
        yield {**encoded, "labels": labels}


def measure(head: str, folder: Path) -> dict[str, float]:
    """Build an INT8 bundle with `auto`, and return the main metric of its graphs in points."""
    import toolchain

    options = {"task": folder / "task.toml", "data": folder, "device": "cpu"}
    bundle = toolchain.build(
        model=folder / "model", precision="int8", calib_method="auto", output=folder / "bundle", **options
    )["bundle"]
    found = {}
    for file in ("model.onnx", "model.int8.onnx", "model.int8.cpu.onnx"):
        result = toolchain.evaluate(bundle, file=file, device="cpu")
        found[file] = 100 * result["metrics"][str(result["primary"])]
    return found


def main() -> None:
    """Make and measure one head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", choices=["multilabel", "tokens"])
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    make(arguments.head, arguments.output)
    for file, points in measure(arguments.head, arguments.output).items():
        print(f"{file}: {points:.2f}")


if __name__ == "__main__":
    main()
