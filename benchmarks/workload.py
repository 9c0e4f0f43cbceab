"""The model and rows of the benchmarks: sst2 with a fine-tuned DistilBERT if ../shared has them, else the demo's."""

from dataclasses import dataclass
from pathlib import Path

from toolchain.bundle.build import build
from toolchain.bundle.resolved_recipe import ResolvedRecipe, resolve
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

    def rows(self, split: str) -> Rows:
        """Return the rows of a split."""
        return load_rows(self.resolved.task, split, **self.resolved.recipe.reading)


def recipe(*, demo: bool = False) -> Recipe:
    """Return the recipe of the fine-tuned model if its files exist, else (or with `demo`) the demo's."""
    model, data = SHARED / "models/distilbert-l6-h384-sst2", SHARED / "glue/sst2"
    if model.exists() and data.exists() and not demo:
        return Recipe(model=str(model), task="sst2", data=str(data))
    return Recipe(model="demo", task="demo")


def make(chosen: Recipe, folder: Path, *, steps: tuple[str, ...] = STEPS) -> Workload:
    """Build the graphs of a recipe below `folder`."""
    resolved = resolve(chosen.replace(precision="int8", output=str(folder / "bundle")), steps)
    build(resolved.recipe, steps=steps, engine=False)
    return Workload(resolved, resolved.bundle_folder, folder)
