"""Writes the demo's folder `names`: `python -m toolchain.data.demo.make.names -o DIR`, in about three minutes.

It generates reviews that contain names of people, towns and things, and trains two models. One tags each word; the
other predicts the labels of a review: the kinds of names in it, and whether it is favourable. The slots of the
templates give the tags and labels. Names of validation rows do not occur in training, a few names have the ending of
another kind, and some words are misspelt.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from toolchain.data.demo.make import texts, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Slot of a template -> the kind of name that fills it, as it is written in tags and in the labels of a row.
KINDS: Final = {"person": "PERSON", "town": "TOWN", "rival": "THING"}
TAGS: Final = ("O", *(f"{prefix}-{kind}" for kind in KINDS.values() for prefix in "BI"))
PRAISE: Final = "PRAISE"
LABELS: Final = (*KINDS.values(), PRAISE)
HEADS: Final = ("tokens", "multilabel")

# Slot of a template -> the endings of its names. Some endings belong to two slots, so the ending does not always tell
# the kind of a name.
ENDINGS: Final = {
    "person": ("a", "o", "in", "elle", "is"),
    "town": ("ton", "ford", "burg", "in", "a"),
    "rival": ("ex", "matic", "o", "is", "ton"),
}
SYLLABLES: Final = tuple(first + last for first in "bdfghk" for last in ("an", "or", "el"))
# The fraction of names with a second word, which is a single letter.
TWO_WORDS: Final = 0.3
# The fraction of names whose ending is drawn from the endings of a random kind.
NOISE: Final = 0.03
# The fraction of words that are misspelt, apart from short words (texts.SHORTEST_MISTYPED_WORD).
TYPOS: Final = 0.05
# How many neutral sentences a review gets; each entry is equally likely.
CLUTTER_COUNTS: Final = (0, 1, 1, 2)

# Number of rows that the models are trained on. train.tsv has only the first of these rows (see ROWS).
LEARNT_ROWS: Final = 5000
ROWS: Final = {"train": 2000, "validation": 1500}
SIZES: Final = {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 256, "max_position_embeddings": train.MAX_TOKENS}
VOCABULARY, EPOCHS, BATCH, RATE = 1200, 9, 32, 2e-3
# The label of tokens that torch's cross entropy ignores.
IGNORED: Final = -100

# A name in a filled template, between control characters that no template contains.
MARKED: Final = re.compile("\x02(\\w+)\x03([^\x04]*)\x04")
WORD: Final = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")


class Row(NamedTuple):
    """A review: its words, the IOB2 tag of each word, and the labels of the whole review."""

    words: list[str]
    tags: list[str]
    labels: list[str]


class _Filler(texts._Filler):
    """Fills the slots of `KINDS` with names, and encloses each name in control characters, so that `_row` can tag it.

    Training and validation use the same templates, but different names.
    """

    def __init__(self, rng: random.Random, split: str) -> None:
        super().__init__(rng, "train", rng.choice((texts.NEGATIVE, texts.POSITIVE)))
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
            # A third of the stems are for validation only. The stem alone decides, whatever the order of the draws.
            held = (SYLLABLES.index(stem[0]) + 5 * SYLLABLES.index(stem[1])) % 3 == 0
            if held == (self._names_of == "validation"):
                break
        name = "".join(stem).capitalize() + self._rng.choice(ENDINGS[kind])
        return f"{name} {self._rng.choice('ABCDEFGH')}" if self._rng.random() < TWO_WORDS else name


def main(argv: Sequence[str] | None = None) -> int:
    """Generate the data, train both models, and write all of it to the folder `--output`."""
    parser = argparse.ArgumentParser(prog="python -m toolchain.data.demo.make.names", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    make(parser.parse_args(argv).output)
    return 0


def make(folder: Path, *, learnt_rows: int = LEARNT_ROWS, epochs: int = EPOCHS, seed: int = 0) -> None:
    """Write train.tsv, validation.tsv, and a folder for each model.

    The models are trained on `learnt_rows` rows; train.tsv has the first 2000 of them.
    """
    import torch

    learnt = generate("train", learnt_rows, seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", learnt), ("validation", generate("validation", ROWS["validation"], seed))):
        (folder / f"{split}.tsv").write_bytes(tsv(rows[: ROWS[split]]).encode())
    # The tokenizer is trained without names, so that it splits the names of train as it splits those of validation.
    others = [" ".join(word for word, tag in zip(row.words, row.tags, strict=True) if tag == "O") for row in learnt]
    tokenizer = train.train_tokenizer(others, VOCABULARY)
    for head in HEADS:
        torch.manual_seed(seed)
        rng = random.Random(seed)
        batches = [batch for _ in range(epochs) for batch in _batches(rng.sample(learnt, len(learnt)), head, tokenizer)]
        model = train.fit(new_model(head, len(tokenizer)), batches, RATE)
        tokenizer.save_pretrained(folder / head)
        model.half().save_pretrained(folder / head)


def generate(split: str, count: int, seed: int) -> list[Row]:
    """Return `count` different reviews of the split "train" or "validation". The same seed gives the same reviews.

    The two splits have no text in common.
    """
    rng = random.Random(f"names {split} {seed}")
    found: dict[str, Row] = {}
    while len(found) < count:
        filler = _Filler(rng, split)
        parts = [filler.template(), *filler.clutter(rng.choice(CLUTTER_COUNTS))]
        filled = texts._polished(filler.fill(" ".join(rng.sample(parts, len(parts)))))
        row = _row(filled, rng, praise=filler._label == texts.POSITIVE)
        text = " ".join(row.words)
        # The same review without names can be drawn for both splits, so a hash of the text assigns it to one of them.
        if (zlib.crc32(text.lower().encode()) % 4 == 0) == (split == "validation"):
            found[text] = row
    return list(found.values())


def _row(filled: str, rng: random.Random, *, praise: bool) -> Row:
    tokens: list[tuple[str, str]] = []
    start = 0
    for name in MARKED.finditer(filled):
        tokens += [(word, "O") for word in WORD.findall(filled[start : name.start()])]
        tokens += [(word, f"{'I' if at else 'B'}-{name[1]}") for at, word in enumerate(name[2].split())]
        start = name.end()
    tokens += [(word, "O") for word in WORD.findall(filled[start:])]
    tags = [tag for _, tag in tokens]
    typed = [texts._mistyped(rng, word) if rng.random() < TYPOS else word for word, _ in tokens]
    labels = [kind for kind in KINDS.values() if f"B-{kind}" in tags]
    return Row(typed, tags, [*labels, *([PRAISE] if praise else [])])


def tsv(rows: list[Row]) -> str:
    """Return the rows as the text of a tsv file. Spaces separate words and tags; labels are a JSON list."""
    lines = [f"{' '.join(row.words)}\t{' '.join(row.tags)}\t{json.dumps(row.labels)}" for row in rows]
    return "\n".join(["text\ttags\tlabels", *lines]) + "\n"


def new_model(head: str, vocabulary: int) -> PreTrainedModel:
    """Return an untrained DistilBERT. `head` is "tokens" or "multilabel", and `vocabulary` the number of tokens."""
    import transformers

    names = TAGS if head == "tokens" else LABELS
    config = transformers.DistilBertConfig(
        vocab_size=vocabulary,
        **SIZES,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
        initializer_range=train.INITIAL_SPREAD,
        pad_token_id=train.SPECIAL_TOKENS.index("[PAD]"),
        id2label=dict(enumerate(names)),
        label2id={name: at for at, name in enumerate(names)},
        problem_type=None if head == "tokens" else "multi_label_classification",
    )
    kind = "Token" if head == "tokens" else "Sequence"
    model: PreTrainedModel = getattr(transformers, f"DistilBertFor{kind}Classification")(config)
    train.spread_attention(model)
    return model


def _batches(rows: list[Row], head: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[dict[str, Any]]:
    """Yield batches of tokenized rows and their labels as tensors. Only the first token of a word has a tag."""
    import torch

    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        split = [row.words for row in some]
        encoded = tokenizer(split, is_split_into_words=True, padding=True, truncation=True, return_tensors="pt")
        if head == "tokens":
            tags = [_tags_of(row, encoded.word_ids(at)) for at, row in enumerate(some)]
            labels = torch.tensor(tags)
        else:
            labels = torch.tensor([[float(kind in row.labels) for kind in LABELS] for row in some])
        yield {**encoded, "labels": labels}


def _tags_of(row: Row, words: list[int | None]) -> list[int]:
    """Return the index of each token's tag in `TAGS`, or -100 if the loss must ignore the token.

    `words` has the index of each token's word, None for a special token. Only the first token of a word has a tag.
    """
    return [
        IGNORED if word is None or word == before else TAGS.index(row.tags[word])
        for before, word in zip([None, *words], words, strict=False)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
