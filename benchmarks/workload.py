"""The model and rows of the benchmarks: sst2 with a fine-tuned DistilBERT if ../shared has them, else the demo's.

The model may be replaced by random weights of DistilBERT-base's shapes, and the rows may be made longer.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from toolchain.bundle.build import build
from toolchain.bundle.resolved_recipe import ResolvedRecipe, resolve
from toolchain.data.demo import FOLDER
from toolchain.data.rows import Rows, load_rows
from toolchain.recipe import Recipe

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
# The steps of FP32 and of INT8, so that one bundle has the graphs of both.
STEPS = ("export", "cpu", "calibrate", "quantize")


@dataclass(frozen=True)
class Workload:
    """A resolved recipe, the bundle with its graphs, and a folder for the graphs of other tools."""

    resolved: ResolvedRecipe
    bundle: Path
    folder: Path
    # Each row repeats its text until it has this many tokens; its label stays.
    tokens: int | None = None
    # Batches of 32 rows in the order of the file, as a pipeline makes them, instead of batches sorted by length.
    file_order: bool = False
    # A checkout of an earlier version of this project, which then is a contender.
    before: Path | None = None

    def rows(self, split: str) -> Rows:
        """Return the rows of a split."""
        rows = load_rows(self.resolved.task, split, **self.resolved.recipe.reading)
        if self.tokens is None:
            return rows
        return replace(rows, texts=[tuple(repeated(part, self.tokens) for part in text) for text in rows.texts])


def repeated(text: str, words: int) -> str:
    """Return a text of at least this many words, and so tokens, by repeating it."""
    return " ".join([text] * -(-words // max(1, len(text.split()))))


def recipe(*, demo: bool = False) -> Recipe:
    """Return the recipe of the fine-tuned model if its files exist, else (or with `demo`) the demo's."""
    model, data = SHARED / "models/distilbert-l6-h384-sst2", SHARED / "glue/sst2"
    if model.exists() and data.exists() and not demo:
        return Recipe(model=str(model), task="sst2", data=str(data))
    return Recipe(model="demo", task="demo")


def base_checkpoint(folder: Path) -> Path:
    """Write a checkpoint with DistilBERT-base's shapes and random weights, and return its folder."""
    import torch
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertForSequenceClassification

    model = SHARED / "models/distilbert-l6-h384-sst2"
    tokenizer = AutoTokenizer.from_pretrained(str(model if model.exists() else FOLDER))
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=len(tokenizer), num_labels=2)
    DistilBertForSequenceClassification(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    return folder / "base"


def make(
    chosen: Recipe,
    folder: Path,
    *,
    steps: tuple[str, ...] = STEPS,
    base: bool = False,
    tokens: int | None = None,
    file_order: bool = False,
    before: Path | None = None,
) -> Workload:
    """Build the graphs of a recipe below `folder`, if they are not there; with `base`, of DistilBERT-base's shapes."""
    if base:
        chosen = chosen.replace(model=str(base_checkpoint(folder)))
    if tokens:
        chosen = chosen.replace(max_length=tokens)
    resolved = resolve(chosen.replace(precision="int8", output=str(folder / "bundle")), steps)
    build(resolved.recipe, steps=steps, engine=False)
    return Workload(resolved, resolved.bundle_folder, folder, tokens, file_order, before)
