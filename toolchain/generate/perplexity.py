"""Measures the perplexity of a language model's graph on documents: `toolchain eval` of a bundle of `--task lm`."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolchain.base.files import write_json
from toolchain.base.progress import track
from toolchain.bundle import RESULTS
from toolchain.checkpoint.model import load_tokenizer
from toolchain.data.rows import Rows, load_rows
from toolchain.data.tasks import Task
from toolchain.errors import InputError, UsageError
from toolchain.evaluation.results import SCHEMA
from toolchain.evaluation.statistics import bootstrap_ratio_ci95
from toolchain.evaluation.target import recorded
from toolchain.generate.build import TASK, graph_name
from toolchain.generate.decode_ort import Session
from toolchain.generate.opened import OpenedGraph, open_file, open_lm, refuse_others
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues
from toolchain.records.language_model import PerplexityResult, Rise
from toolchain.runtimes.environment import describe

# Options of `eval` that apply to language models.
TAKEN = {
    *("task", "data", "split", "split_column", "validation_share", "text_join", "text_column", "limit", "max_length"),
    *("precision", "backend", "device", "file", "trust", "seed"),
}

FP32 = graph_name("fp32")


def evaluate(changes: RecipeValues, place: Path, *, tell: Callable[[str], None]) -> PerplexityResult:
    """Score every token of the documents, except the first token of each; save the perplexity and return it.

    A document that is longer than --max-length is cut into windows of that many tokens. Each window begins with the
    last token of the window before it, so that each token is scored once. A quantized graph is compared with
    model.onnx.

    Raises:
        ToolchainError: see errors.py.
    """
    refuse_others(changes, TAKEN)
    if changes.get("task") not in (None, TASK):
        raise UsageError(
            f"--task {changes['task']}: {place} is a language model, whose task is {TASK}. Leave --task out."
        )
    bundle = open_lm(place, trust=changes.get("trust"))
    recipe = recorded(bundle, {**changes, "precision": None})
    if recipe.file is None and changes.get("precision"):
        recipe = recipe.replace(file=graph_name(changes["precision"]))
    window, room = recipe.max_length or bundle.manifest["max_length"], bundle.manifest["lm"]["positions"]
    if room is not None and window > room:
        raise UsageError(f"--max-length {window}: the model has {room} positions. Give {room} or less.")
    rows = _documents(recipe, bundle.manifest["task"]["text_columns"][0])
    tokenizer = load_tokenizer(bundle.path, files={name: bundle.read(name) for name in bundle.texts})
    documents = [list(tokenizer(text)["input_ids"]) for (text,) in rows.texts]
    if not any(len(ids) > 1 for ids in documents):
        raise InputError(f"{rows.source}: no document has two tokens, so no token can be scored. Give longer texts.")
    opened = open_file(bundle, recipe.file, device=recipe.device)
    tell(f"{bundle.path}: scoring {len(rows):,} documents, {sum(map(len, documents)):,} tokens, with {opened.file}")
    losses = score(opened.session, documents, window, text=opened.file)
    counts = np.array([max(0, len(ids) - 1) for ids in documents], np.float64)
    return _saved(opened, recipe, rows, losses, counts, _rise(opened, recipe, documents, window, losses, counts))


def score(session: Session, documents: Sequence[Sequence[int]], window: int, *, text: str) -> NDArray[np.float64]:
    """Return the loss of each document: the sum of the negative log probabilities of its tokens, in nats, float64.

    The first token of a document has no probability, so it does not count. `text` labels the progress bar.
    """
    return np.array([_loss(session, ids, window) for ids in track(documents, total=len(documents), text=text)])


def _loss(session: Session, document: Sequence[int], window: int) -> float:
    total = 0.0
    for start in range(0, len(document) - 1, window - 1):
        ids = np.array([document[start : start + window]], np.int64)
        logits, _ = session.run(ids, np.ones_like(ids), session.empty(1), np.arange(ids.shape[1] - 1))
        scores = logits[0]
        highest = scores.max(axis=-1, keepdims=True)
        sums = np.log(np.exp(scores - highest).sum(axis=-1, dtype=np.float64)) + highest[:, 0]
        total += float((sums - np.take_along_axis(scores, ids[0, 1:, None], axis=-1)[:, 0]).sum())
    return total


def _documents(recipe: Recipe, column: str) -> Rows:
    task = Task(name=TASK, text_columns=(recipe.text_column or column,))
    rows = load_rows(task, recipe.split, **recipe.reading)
    return rows.take(range(min(recipe.limit, len(rows)))) if recipe.limit else rows


def _rise(
    opened: OpenedGraph,
    recipe: Recipe,
    documents: Sequence[Sequence[int]],
    window: int,
    losses: NDArray[np.float64],
    counts: NDArray[np.float64],
) -> Rise | None:
    """Compare the perplexity of a quantized graph with that of model.onnx; return None for model.onnx itself."""
    if opened.file == FP32:
        return None
    reference = open_file(opened.bundle, FP32, device=recipe.device)
    known = score(reference.session, documents, window, text=FP32)
    ratio = float(np.exp((losses - known).sum() / counts.sum()))
    low, high = _interval(losses - known, counts, recipe.seed) or (0.0, float("inf"))
    return {
        "artefact": FP32,
        "perplexity": _perplexity(known, counts),
        "ratio": ratio,
        "ratio_ci95": [low, high] if low else None,
        "verdict": "higher" if low > 1 else "lower" if high < 1 else "cannot tell",
    }


def _perplexity(losses: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    return float(np.exp(losses.sum() / counts.sum()))


def _interval(losses: NDArray[np.float64], counts: NDArray[np.float64], seed: int) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of exp(sum of losses / sum of counts) over the documents.

    Documents without tokens to score are left out. Return None if fewer than two are left.
    """
    some = counts > 0
    if some.sum() < 2:
        return None
    low, high = np.exp(bootstrap_ratio_ci95(losses[some], counts[some], seed=seed)).tolist()
    return low, high


def _saved(
    opened: OpenedGraph,
    recipe: Recipe,
    rows: Rows,
    losses: NDArray[np.float64],
    counts: NDArray[np.float64],
    rise: Rise | None,
) -> PerplexityResult:
    bundle, device = opened.bundle, opened.session.device
    ends = _interval(losses, counts, recipe.seed)
    parts = [TASK, recipe.split, "ort", device.replace(":", ""), opened.file.removesuffix(".onnx")]
    file = bundle.path / RESULTS / f"{'-'.join([*parts, *([f'first{recipe.limit}'] if recipe.limit else [])])}.json"
    result: PerplexityResult = {
        "schema": SCHEMA,
        "task": TASK,
        "split": recipe.split,
        "documents": len(rows),
        "data_sha256": rows.digest,
        "model": bundle.manifest["model"]["id"],
        "backend": "ort",
        "device": device,
        "precision": opened.precision,
        "artefact": {"file": opened.file, "sha256": bundle.manifest["artefacts"][opened.file]},
        "perplexity": _perplexity(losses, counts),
        "perplexity_ci95": list(ends) if ends else None,
        "tokens_scored": int(counts.sum()),
        "max_length": recipe.max_length or bundle.manifest["max_length"],
        "reference": rise,
        "environment": describe(),
        "seed": recipe.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "file": str(file),
    }
    write_json(file, result)
    return result
