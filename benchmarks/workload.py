"""The model and the rows that the benchmarks run: sst2 with a fine-tuned DistilBERT, or the demo's.

The first pair is used if ../shared has it. Options replace the model by one with DistilBERT-base's shapes and random
weights, and make the rows longer.
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
    """What a benchmark runs: a resolved recipe, the bundle built from it, and a folder for graphs of other tools."""

    resolved: ResolvedRecipe
    bundle: Path
    folder: Path
    # If given, the text of each row is repeated until the row has this many tokens. The label stays the same.
    tokens: int | None = None
    # If true, batches have 32 rows in the order of the file, as a pipeline makes them. If false, they are sorted by
    # length.
    file_order: bool = False
    # A checkout of an earlier version of this project. If given, it is a contender.
    before: Path | None = None

    def rows(self, split: str) -> Rows:
        """Return the rows of a split, such as `validation`, with their texts repeated to `tokens` if that is given."""
        rows = load_rows(self.resolved.task, split, **self.resolved.recipe.reading)
        if self.tokens is None:
            return rows
        return replace(rows, texts=[tuple(repeated(part, self.tokens) for part in text) for text in rows.texts])


def repeated(text: str, words: int) -> str:
    """Return the text repeated until it has at least `words` words. It then has at least as many tokens."""
    return " ".join([text] * -(-words // max(1, len(text.split()))))


def recipe(*, demo: bool = False) -> Recipe:
    """Return the recipe of the fine-tuned model on sst2; the demo's recipe if its files are missing or with `demo`."""
    model, data = SHARED / "models/distilbert-l6-h384-sst2", SHARED / "glue/sst2"
    if model.exists() and data.exists() and not demo:
        return Recipe(model=str(model), task="sst2", data=str(data))
    return Recipe(model="demo", task="demo")


def base_checkpoint(folder: Path) -> Path:
    """Write a checkpoint with DistilBERT-base's shapes and random weights below `folder`, and return its path."""
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
    """Build the graphs of a recipe below `folder`, unless they are there already, and return the workload.

    `steps` are the steps of the build. With `base`, the model has DistilBERT-base's shapes and random weights. The
    other arguments are fields of `Workload`.
    """
    if base:
        chosen = chosen.replace(model=str(base_checkpoint(folder)))
    if tokens:
        chosen = chosen.replace(max_length=tokens)
    resolved = resolve(chosen.replace(precision="int8", output=str(folder / "bundle")), steps)
    build(resolved.recipe, steps=steps, engine=False)
    return Workload(resolved, resolved.bundle_folder, folder, tokens, file_order, before)
