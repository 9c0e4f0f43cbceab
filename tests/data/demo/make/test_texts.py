"""The demo's sentences: repeatable, balanced, and with nothing shared between the splits."""

from __future__ import annotations

import json

import pytest

from toolchain.data.demo import FOLDER
from toolchain.data.demo.make import texts

SEED = 3


def test_the_same_seed_gives_the_same_rows() -> None:
    assert texts.generate("train", 200, SEED) == texts.generate("train", 200, SEED)
    assert texts.generate("train", 200, SEED) != texts.generate("train", 200, SEED + 1)


def test_fewer_rows_are_the_beginning_of_more() -> None:
    assert texts.generate("train", 50, SEED) == texts.generate("train", 200, SEED)[:50]


def test_no_sentence_and_no_template_is_in_both_splits() -> None:
    train = texts.generate("train", 4000, SEED)
    validation = texts.generate("validation", 1000, SEED)
    assert len({row.sentence for row in train + validation}) == 5000
    assert {row.template for row in train}.isdisjoint(row.template for row in validation)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_labels_are_balanced(split: str) -> None:
    rows = texts.generate(split, 1000, SEED)
    assert 0.45 <= sum(row.label for row in rows) / len(rows) <= 0.55


@pytest.mark.parametrize("split", ["train", "validation"])
def test_shipped_data_is_what_the_generator_gives(split: str) -> None:
    recorded = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
    rows = texts.generate(split, recorded[f"{split}_rows"], recorded["seed"])
    assert (FOLDER / f"{split}.tsv").read_bytes() == texts.tsv(rows).encode()
