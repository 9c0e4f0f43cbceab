"""What is measured: GLUE's sst2 with a fine-tuned DistilBERT where ../shared has them, else the demo's."""

from dataclasses import dataclass
from pathlib import Path

from toolchain.bundle.build import build
from toolchain.bundle.resolved import ResolvedRecipe, resolve
from toolchain.data.rows import Rows, load_rows
from toolchain.recipe import Recipe

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
STEPS = ("export", "cpu", "calibrate", "quantize")
"""Those of FP32 and of INT8, so that one bundle has the graphs of both."""


@dataclass(frozen=True)
class Subject:
    """A job, the bundle of all its graphs, and a folder for the graphs of others."""

    resolved: ResolvedRecipe
    bundle: Path
    folder: Path

    def rows(self, split: str) -> Rows:
        """Return the rows of a split."""
        return load_rows(self.resolved.task, split, data=self.resolved.recipe.data)


def recipe(*, demo: bool = False) -> Recipe:
    """Return the recipe to measure: the real model and data where they are, else the demo's, or if asked."""
    model, data = SHARED / "models/distilbert-l6-h384-sst2", SHARED / "glue/sst2"
    if model.exists() and data.exists() and not demo:
        return Recipe(model=str(model), task="sst2", data=str(data))
    return Recipe(model="demo", task="demo")


def make(chosen: Recipe, folder: Path, *, steps: tuple[str, ...] = STEPS) -> Subject:
    """Build the graphs of a recipe below `folder`."""
    resolved = resolve(chosen.replace(precision="int8", output=str(folder / "bundle")), steps)
    build(resolved.recipe, steps=steps, engine=False)
    return Subject(resolved, resolved.target, folder)
