"""The demo's training script and the checkpoint that it gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolchain.data.demo import FOLDER
from toolchain.data.demo.make import texts, train


def test_shipped_checkpoint_has_the_recorded_accuracy() -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    recorded = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
    rows = texts.generate("validation", recorded["validation_rows"], recorded["seed"])
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER, dtype=torch.float32).eval()
    accuracy = train.accuracy_of(model, AutoTokenizer.from_pretrained(FOLDER), rows)
    assert accuracy == pytest.approx(recorded["validation_accuracy"], abs=0.002)


def test_a_tiny_run_writes_a_folder_that_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    sizes = ["--train-rows", "40", "--learnt-rows", "40", "--validation-rows", "20"]
    assert train.main(["-o", str(tmp_path), *sizes, "--max-steps", "1"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == train.MAX_TOKENS
    assert tokenizer("a", "b")["input_ids"][0] == tokenizer.cls_token_id
    assert model.config.id2label == train.LABELS
    assert (tmp_path / "train.tsv").read_text(encoding="utf-8").count("\n") == 41
