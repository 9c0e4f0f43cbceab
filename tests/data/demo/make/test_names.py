"""The demo's reviews with names: repeatable, tags of a scheme, and no name and no text in both splits."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from toolchain.data.demo import MODELS
from toolchain.data.demo.make import names

FOLDER = MODELS["demo-tokens"].parent


@functools.cache
def split(name: str) -> list[names.Row]:
    """Return the rows of a split that a model was trained on, or that are shipped for validation."""
    return names.generate(name, names.LEARNT_ROWS if name == "train" else names.ROWS[name], 0)


@pytest.mark.parametrize("name", ["train", "validation"])
def test_shipped_data_is_what_the_generator_gives(name: str) -> None:
    assert (FOLDER / f"{name}.tsv").read_bytes() == names.tsv(split(name)[: names.ROWS[name]]).encode()


def test_no_name_and_no_text_is_in_both_splits() -> None:
    train, validation = split("train"), split("validation")
    texts = [{" ".join(row.words).lower() for row in rows} for rows in (train, validation)]
    begun = [
        {word for row in rows for word, tag in zip(row.words, row.tags, strict=True) if tag[0] == "B"}
        for rows in (train, validation)
    ]
    assert texts[0].isdisjoint(texts[1])
    assert begun[0].isdisjoint(begun[1])
    assert len(begun[1]) > 500


def test_tags_and_labels_are_those_of_the_names() -> None:
    rows = split("validation")
    assert {tag for row in rows for tag in row.tags} == set(names.TAGS)
    assert {label for row in rows for label in row.labels} == set(names.LABELS)
    for row in rows:
        assert len(row.words) == len(row.tags)
        assert [label for label in row.labels if label != names.PRAISE] == [
            kind for kind in names.KINDS.values() if f"B-{kind}" in row.tags
        ]
        for before, tag in zip(["O", *row.tags], row.tags, strict=False):
            assert tag[0] != "I" or before[2:] == tag[2:]
    assert 0.45 < sum(names.PRAISE in row.labels for row in rows) / len(rows) < 0.55


@pytest.mark.slow
def test_a_short_run_writes_folders_that_load(tmp_path: Path) -> None:
    import transformers

    names.make(tmp_path, learnt_rows=64, epochs=1)
    tags = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "tokens")
    labels = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "multilabel")
    assert tuple(tags.config.id2label.values()) == names.TAGS
    assert tuple(labels.config.id2label.values()) == names.LABELS
    assert labels.config.problem_type == "multi_label_classification"
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "tokens")) == tags.config.vocab_size
