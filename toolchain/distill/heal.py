"""`toolchain heal`: the weights of a bundle's INT8 graphs, chosen anew so that INT8 gives FP32's logits.

First the weights of each GEMM are rounded so that their errors cancel (reconstruct.py). Then, if a length is given, all
weights are trained: the student is the pair of INT8 graphs with their rounding in place (fake_quantize.py), and the
teacher is the bundle's FP32 graph. Labels are not read. Ranges of activations stay as they were calibrated. The graphs
are then made of the healed weights by the same step of a build that made them before.
"""

import glob
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from toolchain.base.files import sha256_json
from toolchain.base.tensors import Logits
from toolchain.bundle import Bundle, open_bundle
from toolchain.bundle.build import requantize
from toolchain.bundle.healed import FILE, made_of
from toolchain.bundle.resolved_recipe import ResolvedRecipe, resolve
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Rows
from toolchain.diagnose.gate import gate, judge
from toolchain.distill.fake_quantize import Student, compare_sites, student_of, teacher_graph, teacher_of
from toolchain.distill.loop import Distilled, Settings, distil
from toolchain.distill.losses import DIVERGENCES
from toolchain.distill.reconstruct import TOKENS, reconstruct
from toolchain.errors import GateError, InputError, UsageError
from toolchain.evaluation.compare import PASSES
from toolchain.evaluation.target import find_checkpoint, recorded
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues
from toolchain.records.heal import HealDistance, Healed, HealRecord, HealRounding
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run

log = logging.getLogger(__name__)

# Points that INT8 may lose where neither --max-drop nor the bundle's recipe says it.
DEFAULT_MAX_DROP = 0.5

# Train rows that are not learnt from, on which INT8 must be nearer to FP32 afterwards; at most this share of all.
HELD_OUT_ROWS, HELD_OUT_SHARE = 512, 8

# Rows on which the student is compared with the graphs before it is trained.
PROVED_ROWS = 16

# At each site the student must have the activation of the graph to this share of its size, and this share of the
# integers may be one level away, because they lie in the middle of two.
TOLERANCE, ROUNDED = 1e-3, 1e-2

# Adam's rate: the weights are trained already, and move by about one INT8 level.
RATE = 2e-5

Tell = Callable[[str], None]
"""Receives a line of progress."""


def heal(
    changes: RecipeValues,
    bundle: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    tell: Tell = log.info,
) -> Healed:
    """Round the weights of an INT8 bundle anew if its gate does not pass; put them into both graphs, and run the gate.

    With `steps` or `minutes` the weights are trained afterwards. `changes` are options by their names in a recipe. An
    interrupted training goes on when the call is made again: its state is in a file beside the bundle until the graphs
    are there.

    Raises:
        GateError: an INT8 graph came no nearer to FP32 on train rows that were not learnt from. The bundle is
            unchanged.
        UsageError: the bundle is the current folder.
        InputError: the bundle is not in INT8, its checkpoint is missing, its graphs cannot be trained, or rows lack.
        ToolchainError: see errors.py. The bundle is then unchanged.
    """
    opened = open_bundle(bundle, trust=changes.get("trust"))
    _check(opened)
    recipe = recorded(opened, changes)
    recipe = recipe if recipe.max_drop is not None else recipe.replace(max_drop=DEFAULT_MAX_DROP)
    trained = steps is not None or minutes is not None
    settings = Settings(steps=steps, minutes=minutes, seed=recipe.seed, rate=RATE) if trained else None
    find_checkpoint(opened, recipe)
    state = _state_of(opened)
    before, _ = gate(bundle, recipe, tell=tell)
    if all(one["verdict"] == PASSES for one in before) and not recipe.force:
        tell("the gate passes already: nothing needs healing")
        return {"bundle": str(bundle), "before": before, "heal": None}
    resolved = resolve(recipe, steps=tuple(opened.manifest["steps"]))
    if recipe.force:
        state.unlink(missing_ok=True)
    training = _begin(opened, resolved)
    rounding = _round(training, tell)
    done = _train(training, settings, state, tell) if settings else None
    try:
        record = _requantized(training, rounding, done, tell)
    except GateError:
        state.unlink(missing_ok=True)  # the run is over, and the next one has other options
        raise
    state.unlink(missing_ok=True)
    after, deploy = gate(bundle, recipe, tell=tell)
    return {"bundle": str(bundle), "before": before, "heal": record, "gate": after, "deploy": deploy}


def _check(opened: Bundle) -> None:
    """Refuse a bundle that cannot be healed, or not from the current folder, before anything is run."""
    opened.require_one_model("heal")
    if opened.path.resolve() == Path.cwd():
        raise UsageError(f"{opened.path}: the current folder cannot be replaced. Call heal from another folder.")
    if opened.manifest["precision"] != "int8" or "calibration.json" not in opened.manifest["artefacts"]:
        raise InputError(f"{opened.path}: it is not in INT8. Build INT8: toolchain build --precision int8.")


def _state_of(opened: Bundle) -> Path:
    """Return the file of a run's state, whose name says which graphs the run began with; remove states of others.

    A run that was killed after its graphs were in place leaves such a state.
    """
    place, artefacts = opened.path.resolve(), opened.manifest["artefacts"]
    start, graphs = f".{place.name}.heal-", sha256_json([made_of(artefacts), artefacts.get(FILE)])
    state = place.parent / f"{start}{graphs[:16]}"
    for other in place.parent.glob(f"{glob.escape(start)}*"):
        if other != state:
            other.unlink(missing_ok=True)
    return state


def judge_healed(found: Healed, recipe: Recipe) -> None:
    """Refuse a bundle whose gate fails after healing, as a build does.

    Raises:
        GateError: see `judge`.
    """
    way_on = found["deploy"]["next"] if "deploy" in found else None
    judge(found.get("gate", []), strict=recipe.strict, way_on=way_on)


@dataclass(frozen=True)
class _Training:
    """A bundle before it is healed: the student, the rows to learn from, and those that are held out."""

    bundle: Bundle
    resolved: ResolvedRecipe
    student: Student
    rows: Rows
    tokens: Tokens
    # Positions of those that the weights are rounded on.
    rounded: Indices
    held: Tokens
    # FP32's logits of the held-out rows, and by file those of INT8 before.
    reference: Logits
    before: dict[str, Logits]


def _begin(opened: Bundle, resolved: ResolvedRecipe) -> _Training:
    """Return what is trained and compared.

    Raises:
        InputError: the graphs cannot be trained, or the rows are too few.
    """
    rows, recipe = resolved.train_rows, resolved.recipe
    held = rows.sample(min(HELD_OUT_ROWS, len(rows) // HELD_OUT_SHARE), seed=recipe.seed)
    learnt = rows.without(held.text_digests)
    if not len(learnt):
        raise InputError(f"{rows.source}: all texts are the same. Give more rows in train.* or with --calib-data.")
    with rows.placed():
        tokens, some = resolved.encode(learnt.texts), resolved.encode(held.texts)
    try:
        student = student_of(opened.path, keep=recipe.keep, residual=recipe.residual)
    except InputError as error:
        raise InputError(f"{opened.path}: cannot be healed: {error}") from None
    files = {name: opened.path / name for name in student.graphs}
    before = {name: _logits(file, some) for name, file in files.items()}
    rounded = _some_of(tokens, recipe.seed)
    reference = _logits(opened.path / "model.onnx", some)
    return _Training(opened, resolved, student, learnt, tokens, rounded, some, reference, before)


def _some_of(tokens: Tokens, seed: int) -> Indices:
    """Return positions of rows of about TOKENS tokens in all, drawn without replacement, in rising order."""
    order = np.random.default_rng(seed).permutation(len(tokens))
    count = int(np.searchsorted(tokens.lengths[order].cumsum(), TOKENS)) + 1
    return np.sort(order[:count])


def _logits(file: Path, tokens: Tokens) -> Logits:
    with open_runtime("ort", file, device="cpu") as infer:
        return run(infer, tokens).logits


def _round(training: _Training, tell: Tell) -> HealRounding:
    """Prove that the student is the graphs, and round its weights anew, on some of the rows.

    Raises:
        InputError: it is not, or PyTorch cannot run it on these rows.
    """
    opened, student = training.bundle, training.student
    prove(student, training.held.take(np.arange(min(PROVED_ROWS, len(training.held)))), opened.path)
    tokens = training.tokens.take(training.rounded)
    tell(f"rounding the weights on {len(tokens):,} train rows")
    start_s = time.monotonic()
    try:
        gemms = reconstruct(student, teacher_graph(opened.path).model, tokens)
    except InputError as error:
        raise InputError(f"{opened.path}: cannot be healed: {error}") from error
    seconds = time.monotonic() - start_s
    return {"gemms": gemms, "rows": len(tokens), "tokens": int(tokens.lengths.sum()), "seconds": seconds}


def _train(training: _Training, settings: Settings, state: Path, tell: Tell) -> Distilled:
    """Train the student. For errors, see `distil`."""
    opened, resolved, student = training.bundle, training.resolved, training.student
    recipe = resolved.recipe
    key = [made_of(opened.manifest["artefacts"]), training.rows.digest, resolved.max_length, student.names]
    tell(f"healing on {len(training.rows):,} train rows")
    return distil(
        student.model,
        teacher_of(opened.path),
        training.tokens,
        settings,
        divergence=DIVERGENCES[resolved.head.probabilities],
        key=sha256_json([key, recipe.keep, recipe.residual]),
        state=state,
        tell=tell,
    )


def prove(student: Student, tokens: Tokens, folder: Path) -> None:
    """Compare each graph as PyTorch runs it with the same graph in ONNX Runtime, site by site.

    Raises:
        InputError: an activation differs by more than TOLERANCE, or more than ROUNDED of one are on another level; or
            PyTorch cannot run the graph.
    """
    for file, made in student.graphs.items():
        try:
            found = compare_sites(made, tokens)
        except InputError as error:
            raise InputError(f"{folder / file}: cannot be healed: {error}") from error
        if not (found.relative <= TOLERANCE and found.rounded <= ROUNDED):
            raise InputError(
                f"{folder / file}: cannot be healed: in PyTorch an activation differs by {found.relative:.2g} of its "
                f"size, and {found.rounded:.2g} of one are rounded otherwise. Exclude GEMMs instead: toolchain tune."
            )


def _requantized(training: _Training, rounding: HealRounding, done: Distilled | None, tell: Tell) -> HealRecord:
    """Make the bundle's INT8 graphs of the healed weights. For errors, see `requantize` and `_judged`."""
    rows = training.rows if done else training.rows.take(training.rounded)
    return requantize(
        training.bundle,
        training.resolved,
        training.student.weights(),
        _record(training, rows, rounding, done),
        learnt=rows.text_digests,
        judge=partial(_judged, training),
        log=tell,
    )


def _judged(training: _Training, folder: Path, record: HealRecord) -> HealRecord:
    """Return the record with the distance of the new graphs in `folder` from FP32, on the held-out rows.

    Raises:
        GateError: one of them is no nearer than before.
    """
    head, found = training.resolved.head, dict[str, HealDistance]()
    for file, logits in training.before.items():
        before, after = (
            head.distance(training.reference, one) for one in (logits, _logits(folder / file, training.held))
        )
        if not after.rank < before.rank:
            raise GateError(
                f"{training.bundle.path / file}: healing brought INT8 no nearer to FP32: {after.rank:.3g} instead of "
                f"{before.rank:.3g} on {len(training.held)} held-out train rows. The bundle is unchanged. Exclude "
                f"GEMMs instead: toolchain tune."
            )
        found[file] = {"before": before.to_json(), "after": after.to_json()}
    return {**record, "distance": found}


def _record(training: _Training, rows: Rows, rounding: HealRounding, done: Distilled | None) -> HealRecord:
    overlap = training.resolved.overlap
    return {
        "made_of": made_of(training.bundle.manifest["artefacts"]),
        "rows": len(rows),
        "rows_left_out": overlap["left_out"] if overlap else 0,
        "data_sha256": rows.digest,
        "seed": training.resolved.recipe.seed,
        "weights": sum(one.numel() for one in training.student.module.parameters()),
        "rounding": rounding,
        "rows_seen": done.rows if done else 0,
        "steps": done.steps if done else 0,
        "seconds": done.seconds if done else 0.0,
        "loss": {"first": done.first_loss, "last": done.last_loss} if done else None,
        "held_out": len(training.held),
        "distance": {},
    }
