"""A resolved recipe: the checkpoint, task, head, truncation length, precision and build steps that its options mean.

`resolve` makes it from a checkpoint, and `resolve_bundle` from a bundle that exists.
"""

import functools
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Logits
from toolchain.bundle import BUILD_FOLDER, MANIFEST, Bundle
from toolchain.bundle.steps import STEPS
from toolchain.checkpoint.facts import Facts
from toolchain.checkpoint.model import Source, choose_max_length, find_model, parse_config
from toolchain.checkpoint.pooling import Pooling
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import TextEncoder, Tokens
from toolchain.data.rows import Rows, Text, load_all, load_rows
from toolchain.data.tables import MissingSplitError
from toolchain.data.tasks import Task, load_task, task_from
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.heads import find_head
from toolchain.heads.contract import Head
from toolchain.recipe import DEFAULT_MODEL, Reading, Recipe
from toolchain.recipe.tables import ATTENTIONS, AUTO, BACKENDS
from toolchain.records.bundle import ModelInfo, TaskRecord, TensorInfo
from toolchain.records.calibration import OverlapRecord
from toolchain.records.check import find_fault
from toolchain.runtimes.environment import gpu_facts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# The least number of calibration rows. Fewer rows do not give usable calibration ranges.
MIN_ROWS = 8

# Fewer calibration rows than this cause a warning, or an error if evaluated rows were left out.
LEAST_LEFT = 32

# The largest number of hold-out rows. More rows would hardly change a choice, but would take minutes.
POOL_ROWS = 2048

# If the train split is small, one row in three is not used for calibration, so that hold-out rows remain.
HOLDOUT_SHARE = 3


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with the checkpoint, the head for its task, and the other values that its options mean.

    The tokenizer and the rows are loaded when they are first used, because most commands need only some of them. They
    are then kept.
    """

    recipe: Recipe
    source: Source
    head: Head
    max_length: int
    precision: str
    steps: tuple[str, ...]

    def __post_init__(self) -> None:
        """Give the tokenizer to the head, and check the options if the model's logits depend on padding.

        Raises:
            UsageError: the logits depend on padding, and an option pads rows or joins them in one sequence.
        """
        recipe = self.recipe
        object.__setattr__(self, "head", self.head.aligned(lambda texts: self.encoder.spans(texts)))
        unpadded = recipe.attention if recipe.attention in ATTENTIONS[2:] else None
        asked = "--cuda-graphs" if recipe.cuda_graphs else unpadded and f"--attention {unpadded}"
        if asked and self.source.facts.equal_length:
            raise UsageError(
                f"{asked}: the logits of {self.source.name} depend on padding, so a batch must have rows of one length "
                "and no padding. Leave the option out."
            )

    @functools.cached_property
    def checkpoint_logits(self) -> dict[tuple[tuple[str, tuple[int, ...], bytes], ...], Logits]:
        """A cache for checkpoint_parity.py: the names, shapes and bytes of a batch's inputs -> PyTorch's logits."""
        return {}

    @property
    def task(self) -> Task:
        """The task; if it names no metrics, it has the default metrics of its head."""
        return self.head.task

    @property
    def bundle_folder(self) -> Path:
        """The folder of the bundle to build: --output, or else engines/build/<model>-<task>-<precision>."""
        if self.recipe.output:
            return Path(self.recipe.output)
        model = Path(self.source.name).name or self.source.folder.resolve().name
        kind = "calibration" if self.steps[-1] == "calibrate" else self.precision
        return BUILD_FOLDER / f"{model}-{self.task.name}-{kind}"

    def encode(self, texts: list[Text]) -> Tokens:
        """Return the token ids of texts, truncated to `max_length`. They are the same for every backend."""
        return self.encoder(self.head.sequences(texts))

    def find_cut(self, texts: list[Text], lengths: Indices) -> NDArray[np.bool_]:
        """Return which texts lose tokens by truncation to `max_length`, bool [rows].

        `lengths` are the numbers of tokens that the texts have after truncation, int [rows].
        """
        texts, cut = self.head.sequences(texts), lengths >= self.max_length
        if at := np.flatnonzero(cut).tolist():
            cut[at] = self._longer([texts[row] for row in at]).lengths > self.max_length
        return np.asarray(cut)

    @functools.cached_property
    def _longer(self) -> TextEncoder:
        """An encoder that truncates to `max_length` + 1 tokens, to find the rows that `encoder` truncates."""
        facts, length = self.source.facts, self.max_length + 1
        return TextEncoder(self.tokenizer, max_length=length, inputs=self.source.inputs, pad_id=facts.pad_id)

    @functools.cached_property
    def encoder(self) -> TextEncoder:
        """The encoder that turns texts into token ids for the evaluator, the service and the Python API."""
        return self.encoder_of(self.max_length)

    def encoder_of(self, max_length: int) -> TextEncoder:
        """Return a copy of `encoder` that truncates to `max_length` tokens."""
        facts = self.source.facts
        return TextEncoder(
            self.tokenizer,
            max_length=max_length,
            inputs=self.source.inputs,
            pad_id=facts.pad_id,
            vocabulary=facts.values["input_ids"],
            equal_length=facts.equal_length,
        )

    @property
    def tokenization(self) -> dict[str, Any]:  # JSON, part of a step's inputs
        """Everything that the token ids of a text depend on; a step that runs rows is redone when it changes."""
        files = {name: digest for name, digest in self.source.digests.items() if name != "config.json"}
        return {"tokenizer": files, "max_length": self.max_length}

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer of the checkpoint, loaded when it is first used."""
        return self.source.tokenizer

    @property
    def has_local_rows(self) -> bool:
        """Whether the rows are in a file on this machine, so that they are not read from the Hugging Face Hub."""
        return self.recipe.data is not None or self.task.folder is not None

    def rows(self, split: str) -> Rows:
        """Return the rows of a split, such as "train". The split is read only once. For errors, see `load_rows`."""
        if split not in self._rows:
            self._rows[split] = load_rows(self.task, split, **self.recipe.reading)
        return self._rows[split]

    @functools.cached_property
    def _rows(self) -> dict[str, Rows]:
        return {}

    @functools.cached_property
    def evaluated_rows(self) -> Rows | None:
        """The rows of the split to evaluate; None if the split does not exist or cannot be downloaded.

        A failed download logs a warning.
        """
        try:
            return self.rows(self.recipe.split)
        except MissingSplitError:
            return None
        except (UsageError, MachineError) as error:
            log.warning("%s So it was not checked whether train rows are also in the split to evaluate.", error)
            return None

    @property
    def train_rows(self) -> Rows:
        """The train split, or the rows of `--calib-data`, without rows that are also in the split to evaluate.

        Calibration rows and hold-out rows are drawn from them.

        Raises:
            InputError: too few rows remain.
        """
        return self._train[0]

    @property
    def overlap(self) -> OverlapRecord | None:
        """Counts of the texts that are both in the train split and in the split to evaluate; None if there are none.

        `train_rows` leaves these rows out.
        """
        return self._train[1]

    @functools.cached_property
    def _train(self) -> tuple[Rows, OverlapRecord | None]:
        given = self.recipe.calib_data
        reading: Reading = {**self.recipe.reading, "data": given}
        rows = load_all(self.task, **reading) if given else self.rows("train")
        kept, overlap = rows, find_overlap(rows, self.evaluated_rows)
        if overlap:
            assert self.evaluated_rows
            kept = rows.take(np.flatnonzero(~rows.among(set(self.evaluated_rows.text_digests))))
        least = LEAST_LEFT if overlap else MIN_ROWS
        if overlap and not len(kept):
            raise InputError(
                f"{rows.source}: all of these rows are also rows to evaluate, so none is left to calibrate with. "
                "Give other rows in train.* or with --calib-data."
            )
        if overlap and len(kept) < least:
            raise InputError(
                f"{rows.source}: {overlap['left_out']} of {len(rows)} rows are also rows to evaluate, and the other "
                f"{len(kept)} are too few to calibrate with. Give at least {least} rows that are not evaluated, in "
                "train.* or with --calib-data."
            )
        if len(kept) < least:
            raise InputError(
                f"{rows.source}: {len(rows)} rows are too few to calibrate with. Give {least} or more rows."
            )
        if len(kept) < LEAST_LEFT:
            log.warning(
                "%s: only %d rows are left to calibrate with, so the ranges may be inaccurate. "
                "Give more rows in train.* or with --calib-data.",
                rows.source,
                len(kept),
            )
        return kept, overlap

    @functools.cached_property
    def calibration_rows(self) -> Rows:
        """Up to --calib-samples random rows of `train_rows`; with --calib-method auto, some are left as hold-out rows.

        Raises:
            InputError: see `train_rows`.
        """
        rows, count = self.train_rows, self.recipe.calib_samples
        if self.recipe.range_method == "auto":
            count = min(count, len(rows) - len(rows) // HOLDOUT_SHARE)
        return rows.sample(count, seed=self.recipe.seed)

    @functools.cached_property
    def holdout_rows(self) -> Rows:
        """At most POOL_ROWS random rows of `train_rows` whose texts are not calibration rows.

        Raises:
            InputError: there are no such rows.
        """
        return self.rows_without(self.calibration_rows.text_digests)

    def rows_without(self, digests: Collection[str]) -> Rows:
        """Return at most POOL_ROWS random rows of `train_rows`, without the rows whose text digest is in `digests`.

        Raises:
            InputError: there are no such rows.
        """
        left = self.train_rows.without(digests)
        if not len(left):
            raise InputError(
                f"{left.source}: all of its texts are used for calibration, so no hold-out rows are left. "
                "Give more rows, or fewer --calib-samples."
            )
        return left.sample(POOL_ROWS, seed=self.recipe.seed)


def find_overlap(train: Rows, evaluated: Rows | None) -> OverlapRecord | None:
    """Return how many rows of each split have a text that is also in the other split; None if there are none."""
    if evaluated is None:
        return None
    left_out = int(train.among(set(evaluated.text_digests)).sum())
    if not left_out:
        return None
    return {
        "train_rows": len(train),
        "left_out": left_out,
        "evaluated_rows": len(evaluated),
        "evaluated_in_train": int(evaluated.among(set(train.text_digests)).sum()),
    }


def resolve(recipe: Recipe, steps: Collection[str] | None = None) -> ResolvedRecipe:
    """Find the checkpoint and the task of a recipe, and return them with the recipe's other values.

    No rows are read. A new checkpoint is run once on built-in sentences (checkpoint/facts.py). `steps` are the names of
    the build steps to run, from STEPS; by default the steps that the precision needs.

    Raises:
        InputError: the checkpoint cannot be used, or does not fit the task.
        UsageError: a name is unknown, or no bundle can be built in the precision.
        MachineError: the hub is needed and cannot be reached.
    """
    if recipe.backend == AUTO:
        raise UsageError(
            "--backend auto: only eval, predict and serve accept auto. Name a backend, or leave the option out."
        )
    precision = recipe.precision or default_precision(recipe)
    needed = [name for name, step in STEPS.items() if precision in step.precisions]
    if not needed:
        only = "--task lm" if precision == "int4" else "eval --backend torch"
        raise UsageError(
            f"--precision {precision}: this precision can only be used with {only}. Choose fp32, fp16, int8 or fp8."
        )
    task = load_task(recipe)
    source = find_model(
        recipe.model or DEFAULT_MODEL,
        allow_pickle=recipe.allow_pickle,
        trust_remote_code=recipe.trust_remote_code,
        ignore_unused=recipe.ignore_unused,
        pooling=Pooling(task.pooling, bool(task.normalize)) if task.pooling else None,
    )
    head = _head(task, source, recipe)
    ordered = tuple(name for name in STEPS if name in (steps or needed))
    return ResolvedRecipe(recipe, source, head, choose_max_length(source, recipe.max_length), precision, ordered)


def default_precision(recipe: Recipe) -> str:
    """Return the default precision of a build: fp16 if a GPU will run the graphs, and int8 if a CPU will.

    A CPU computes float16 in float32, so an fp16 graph is no faster there.
    """
    backend = BACKENDS.get(recipe.backend or "")
    if backend and backend.gpu is True:
        return "fp16"
    if backend and backend.runs == "graph" and backend.gpu is False:
        return "int8"
    return "fp16" if recipe.device != "cpu" and gpu_facts()["gpu"] else "int8"


def resolve_bundle(bundle: Bundle, recipe: Recipe, *, new_task: bool = False) -> ResolvedRecipe:
    """Return a resolved recipe for a bundle that exists, from the bundle's own files, without the checkpoint.

    With `new_task` the task is the one in the recipe, otherwise the one in the bundle.

    Raises:
        ToolchainError: see errors.py.
    """
    check_described(bundle)
    source = bundled(bundle)
    manifest = bundle.manifest
    task = load_task(recipe) if new_task else task_from(manifest["task"])
    head = _head(task, source, recipe)
    steps = tuple(name for name in STEPS if name in manifest["steps"])
    return ResolvedRecipe(recipe, source, head, manifest["max_length"], manifest["precision"], steps)


def _head(task: Task, source: Source, recipe: Recipe) -> Head:
    """Return the head that reads a checkpoint's logits for a task. For errors, see `find_head`."""
    width = source.facts.width
    return find_head(task, source.labels, possible=source.heads, threshold=recipe.threshold, width=width)


def check_described(bundle: Bundle) -> None:
    """Raise an error if a bundle's manifest lacks a key that is needed to run the bundle, or has one of a wrong type.

    Raises:
        InputError: the message names the first such key.
    """
    manifest = bundle.manifest
    absent = sorted({"model", "task", "max_length", "precision", "inputs", "recipe"} - manifest.keys())
    fault = f"{absent[0]} is missing" if absent else find_fault(manifest["model"], ModelInfo, "model")
    fault = fault or find_fault(manifest["task"], TaskRecord, "task")
    if fault := fault or find_fault(manifest["inputs"], list[TensorInfo], "inputs"):
        raise InputError(f"{bundle.path / MANIFEST}: broken: {fault}. Build the bundle again with --force.")


def bundled(bundle: Bundle) -> Source:
    """Return the checkpoint of a bundle as its manifest, config.json and tokenizer describe it, without weights.

    Raises:
        InputError: a file is missing or differs from its digest, or config.json is broken.
    """
    model, files = bundle.manifest["model"], {name: bundle.read(name) for name in bundle.texts}
    config = parse_config(bundle.read("config.json"), bundle.path)
    # Manifests of earlier versions lack some facts, which are then read from config.json.
    counts = {"input_ids": _number(config, "vocab_size"), "token_type_ids": _number(config, "type_vocab_size", 2)}
    counts |= {"attention_mask": 2, **model.get("values", {})}
    facts = Facts(
        labels=tuple(model["labels"]),
        values={one["name"]: counts[one["name"]] for one in bundle.manifest["inputs"]},
        longest=None,
        pad_id=model.get("pad_id", _number(config, "pad_token_id")),
        equal_length=model.get("batches") == "equal_length",
        width=model["pooling"]["width"] if "pooling" in model else None,
    )
    pooling = Pooling(model["pooling"]["mode"], model["pooling"]["normalize"]) if "pooling" in model else None
    stored = model.get("tokenizer")
    return Source(model["id"], bundle.path, config, pooling=pooling, known=facts, files=files, stored=stored)


def _number(config: dict[str, Any], key: str, default: int = 0) -> int:  # the keys depend on the architecture
    """Return the value of a key of config.json; the default if it is missing or not a whole number."""
    value = config.get(key)
    return value if isinstance(value, int) else default
