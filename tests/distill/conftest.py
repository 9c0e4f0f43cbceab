"""Rows of text for a student of the tiny checkpoints."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def lesson(tiny: ModuleType, once: Callable[[str, Any], Path]) -> Path:
    """A folder of labelled random sentences: 1,040 to train with, of which 40 are also evaluated, and 60 in all."""

    def fill(folder: Path) -> None:
        generator = np.random.default_rng(6)
        texts = [" ".join(generator.choice(tiny.WORDS, generator.integers(3, 10))) for _ in range(1060)]
        for split, part in (("train", texts[:1040]), ("validation", texts[1000:])):
            lines = [f"{text},{generator.integers(2)}" for text in part]
            (folder / f"{split}.csv").write_text("sentence,label\n" + "\n".join(lines) + "\n")
        (folder / "texts.csv").write_text("sentence\n" + "\n".join(texts) + "\n")

    return once("lesson", fill)
