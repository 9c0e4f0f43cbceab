"""A recipe with its names resolved: checkpoint, task, length, steps, and where the bundle goes."""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.bundle import BUILD_FOLDER, Bundle
from toolchain.checkpoint.model import Source, choose_max_length, find_model, load_tokenizer, read_config
from toolchain.checkpoint.tokenize import Tokens, encode
from toolchain.data.labels import check_labels
from toolchain.data.rows import Rows, Text, load_rows
from toolchain.data.tasks import Task, load_task, task_from
from toolchain.errors import InputError, UsageError
from toolchain.recipe import DEFAULT_MODEL, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STEP_ORDER = ("export", "cpu", "half", "cuda", "calibrate", "quantize")
PRECISION_STEPS = {
    "fp32": ("export", "cpu"),
    "fp16": ("export", "half", "cuda"),
    "int8": ("export", "calibrate", "quantize"),
}

MIN_ROWS = 8
"""Fewer rows than this, a small batch, show nothing of how far a tensor reaches."""

POOL_ROWS = 2048
HOLDOUT_SHARE = 3
"""Choices are made on up to so many train rows that calibration leaves over, or a third of a small split."""


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with its names resolved: what every step needs to know."""

    recipe: Recipe
    source: Source
    task: Task
    max_length: int
    precision: str
    steps: tuple[str, ...]

    @property
    def bundle_folder(self) -> Path:
        """The bundle's folder."""
        if self.recipe.output:
            return Path(self.recipe.output)
        model = Path(self.source.name).name or self.source.folder.resolve().name
        kind = "calibration" if self.steps[-1] == "calibrate" else self.precision
        return BUILD_FOLDER / f"{model}-{self.task.name}-{kind}"

    def encode(self, texts: list[Text]) -> Tokens:
        """Tokenise as every backend will."""
        return encode(self.tokenizer, texts, max_length=self.max_length, inputs=self.source.inputs)

    @functools.cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The checkpoint's tokenizer, loaded when it is first needed."""
        return load_tokenizer(self.source.folder, trust_remote_code=self.source.trust_remote_code)

    @functools.cached_property
    def train_rows(self) -> Rows:
        """Return the rows that may be calibrated with: the train split, or that of --calib-data.

        Raises:
            InputError: they would come from the very file that is evaluated, or are too few.
        """
        recipe = self.recipe
        rows = load_rows(self.task, "train", data=recipe.calib_data or recipe.data)
        evaluated = Path(recipe.data or "") / f"{recipe.split}{Path(rows.source).suffix}"
        if evaluated.exists() and Path(rows.source).exists() and evaluated.samefile(rows.source):
            raise InputError(
                f"{rows.source}: the rows to calibrate with are the rows to evaluate. "
                "Give others in train.* or with --calib-data."
            )
        if len(rows) < MIN_ROWS:
            raise InputError(f"{rows.source}: {len(rows)} rows, too few to calibrate with. Give {MIN_ROWS} or more.")
        return rows

    @functools.cached_property
    def calibration_rows(self) -> Rows:
        """Return a seeded sample of the train rows; a method that is chosen leaves some of them over.

        Raises:
            InputError: as of `train_rows`.
        """
        rows, count = self.train_rows, self.recipe.calib_samples
        if self.recipe.calib_method == "auto":
            count = min(count, len(rows) - len(rows) // HOLDOUT_SHARE)
        return rows.sample(count, seed=self.recipe.seed)

    @functools.cached_property
    def holdout_rows(self) -> Rows:
        """Return train rows that were not calibrated with: the pool to choose on.

        Raises:
            InputError: there are none.
        """
        return self.rows_without(self.calibration_rows.text_digests)

    def rows_without(self, digests: Collection[str]) -> Rows:
        """Return a sample of the train rows whose text is not among `digests`.

        Raises:
            InputError: there are none.
        """
        left = self.train_rows.without(digests)
        if not len(left):
            raise InputError(
                f"{left.source}: every text in it was calibrated with, none is left to choose on. "
                "Give more rows, or fewer --calib-samples."
            )
        return left.sample(POOL_ROWS, seed=self.recipe.seed)


def resolve(recipe: Recipe, steps: Collection[str] | None = None) -> ResolvedRecipe:
    """Find the model and the task of a recipe; nothing heavy is loaded.

    `steps` are those of STEP_ORDER that its precision asks for, if not given.

    Raises:
        InputError: the checkpoint cannot be used, or gives several labels at once.
        UsageError: a name is unknown, or the precision is one that nothing is built in.
        MachineError: the hub is needed and cannot be reached.
    """
    precision = recipe.precision or "fp16"
    if precision not in PRECISION_STEPS:
        raise UsageError(f"--precision {precision}: only for eval --backend torch. Build fp32, fp16 or int8.")
    source = find_model(
        recipe.model or DEFAULT_MODEL,
        allow_pickle=recipe.allow_pickle,
        trust_remote_code=recipe.trust_remote_code,
    )
    if source.config.get("problem_type") == "multi_label_classification":
        raise InputError(f"{source.name}: gives several labels at once. Choose a model with one label a row.")
    task = load_task(recipe, regression=source.regression)
    check_labels(task, source.labels)
    wanted = steps or PRECISION_STEPS[precision]
    ordered = tuple(name for name in STEP_ORDER if name in wanted)
    return ResolvedRecipe(recipe, source, task, choose_max_length(source, recipe.max_length), precision, ordered)


def resolve_bundle(bundle: Bundle, recipe: Recipe, *, new_task: bool = False) -> ResolvedRecipe:
    """Return a job that needs nothing but the bundle's own files; `new_task` takes the task from the recipe.

    Raises:
        ToolchainError: see errors.py.
    """
    source = Source(bundle.manifest["model"]["id"], bundle.path, read_config(bundle.path))
    task = load_task(recipe, regression=source.regression) if new_task else task_from(bundle.manifest["task"])
    manifest = bundle.manifest
    steps = tuple(name for name in STEP_ORDER if name in manifest["steps"])
    return ResolvedRecipe(recipe, source, task, manifest["max_length"], manifest["precision"], steps)
