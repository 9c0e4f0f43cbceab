"""`toolchain heal`: the weights of a bundle's INT8 graphs, chosen anew so that INT8 gives FP32's logits.

First the weights of each GEMM are rounded so that their errors cancel (reconstruct.py, choose.py). Then, if a length is
given, all weights are trained: the student is the pair of INT8 graphs with their rounding in place (fake_quantize.py),
and the teacher is the bundle's FP32 graph. Neither reads labels, which only the gate does. Ranges of activations stay
as they were calibrated. The graphs are then made of the healed weights by the same step of a build that made them
before, and each that is not better for it keeps the checkpoint's weights (accept.py).
"""

import glob
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from toolchain.base.files import sha256_json
from toolchain.bundle import Bundle, open_bundle
from toolchain.bundle.build import requantize
from toolchain.bundle.healed import FILE, GRAPHS, healed_graphs, made_of
from toolchain.bundle.resolved_recipe import ResolvedRecipe, resolve
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Rows
from toolchain.diagnose.deploy import advise_deployment
from toolchain.diagnose.gate import Judged, compare_graphs, judge
from toolchain.distill.accept import Accept, Check, Held, Trial, logits_in
from toolchain.distill.choose import round_and_choose
from toolchain.distill.fake_quantize import Student, compare_sites, student_of, teacher_graph, teacher_of
from toolchain.distill.loop import Distilled, Settings, distil
from toolchain.distill.losses import DIVERGENCES
from toolchain.distill.reconstruct import TOKENS
from toolchain.errors import GateError, InputError, UsageError
from toolchain.evaluation.compare import PASSES
from toolchain.evaluation.target import find_checkpoint, recorded
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues
from toolchain.records.heal import Gated, Healed, HealRecord, HealRounding

log = logging.getLogger(__name__)

# Points that INT8 may lose where neither --max-drop nor the bundle's recipe says it.
DEFAULT_MAX_DROP = 0.5

# Train rows that are not learnt from, on which INT8 must be nearer to FP32 afterwards; at most this share of all.
HELD_OUT_ROWS, HELD_OUT_SHARE = 512, 8

# Train rows for the choice among roundings, which are in neither of the other sets; at most the same share.
CHOSEN_ROWS = 256

# With fewer rows that prove it, a result may be that of a few texts. A calibration warns below this number of rows.
LEAST_HELD_OUT = 32

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
    """Round the weights of an INT8 bundle anew if its gate does not pass; put them into the graphs that they help.

    With `steps` or `minutes` the weights are trained afterwards. `changes` are options by their names in a recipe. An
    interrupted training goes on when the call is made again: its state is in a file beside the bundle until the graphs
    are there.

    Raises:
        GateError: no INT8 graph came nearer to FP32 without a worse verdict of its gate. The bundle is unchanged.
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
    judged = compare_graphs(bundle, recipe, tell=tell)
    before = [one.comparison for one in judged]
    if all(one["verdict"] == PASSES for one in before) and not recipe.force:
        tell("the gate passes already: nothing needs healing")
        return {"bundle": str(bundle), "before": before, "heal": None}
    resolved = resolve(recipe, steps=tuple(opened.manifest["steps"]))
    if recipe.force:
        state.unlink(missing_ok=True)
    training = _begin(opened, resolved)
    rounding = _round(training, tell)
    done = _train(training, settings, state, tell) if settings else None
    evaluate = partial(compare_graphs, recipe=recipe, named=bundle, tell=tell)
    trial = Trial(bundle, training.held, judged, evaluate, tell, healed_graphs(opened.manifest["steps"]))
    try:
        record = _requantized(training, trial, rounding, done)
    except GateError:
        state.unlink(missing_ok=True)  # the run is over, and the next one has other options
        raise
    state.unlink(missing_ok=True)
    tell("gate: timing against FP32")
    return {"bundle": str(bundle), "before": before, "heal": record, **_deployed(bundle, recipe, trial.after)}


def _deployed(bundle: Path, recipe: Recipe, after: Sequence[Judged]) -> Gated:
    """Return the comparisons of the healed bundle, and the artefact that they allow to deploy."""
    comparisons = [one.comparison for one in after]
    deploy = advise_deployment(bundle, recipe, [one.result for one in after], comparisons)
    return {"gate": comparisons, "deploy": deploy}


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
    # Rows for the choice among roundings, and their tokens.
    choosing: Rows
    choosing_tokens: Tokens
    held: Held


def _begin(opened: Bundle, resolved: ResolvedRecipe) -> _Training:
    """Return what is trained and compared.

    Raises:
        InputError: the graphs cannot be trained, or the rows are too few.
    """
    recipe, rows = resolved.recipe, resolved.train_rows.without(())  # each text once
    if len(rows) < HELD_OUT_SHARE * LEAST_HELD_OUT:
        raise InputError(
            f"{rows.source}: {len(rows):,} different texts are too few to heal with. An eighth of them is held out and "
            f"proves the result, and this needs at least {LEAST_HELD_OUT}. Give {HELD_OUT_SHARE * LEAST_HELD_OUT} or "
            "more texts in train.* or with --calib-data."
        )
    held = rows.sample(min(HELD_OUT_ROWS, len(rows) // HELD_OUT_SHARE), seed=recipe.seed)
    others = rows.without(held.text_digests)
    choosing = others.sample(min(CHOSEN_ROWS, len(rows) // HELD_OUT_SHARE), seed=recipe.seed)
    learnt = others.without(choosing.text_digests)
    with rows.placed():
        tokens, choosing_tokens, some = (resolved.encode(part.texts) for part in (learnt, choosing, held))
    try:
        student = student_of(opened.path, keep=recipe.keep, residual=recipe.residual)
    except InputError as error:
        raise InputError(f"{opened.path}: cannot be healed: {error}") from None
    before = {name: logits_in(opened.path / name, some) for name in GRAPHS}
    proof = Held(resolved.head, some, logits_in(opened.path / "model.onnx", some), before)
    rounded = _some_of(tokens, recipe.seed)
    return _Training(opened, resolved, student, learnt, tokens, rounded, choosing, choosing_tokens, proof)


def _some_of(tokens: Tokens, seed: int) -> Indices:
    """Return positions of rows of about TOKENS tokens in all, drawn without replacement, in rising order."""
    order = np.random.default_rng(seed).permutation(len(tokens))
    count = int(np.searchsorted(tokens.lengths[order].cumsum(), TOKENS)) + 1
    return np.sort(order[:count])


def _round(training: _Training, tell: Tell) -> HealRounding:
    """Prove that the student is the graphs, and round its weights anew, on some of the rows.

    Raises:
        InputError: it is not, or PyTorch cannot run it on these rows.
    """
    opened, student = training.bundle, training.student
    held, tokens = training.held.tokens, training.tokens.take(training.rounded)
    prove(student, held.take(np.arange(min(PROVED_ROWS, len(held)))), opened.path)
    tell(f"rounding the weights on {len(tokens):,} train rows")
    try:
        teacher, head = teacher_graph(opened.path), training.resolved.head
        return round_and_choose(student, teacher, head, rounded=tokens, chosen=training.choosing_tokens)
    except InputError as error:
        raise InputError(f"{opened.path}: cannot be healed: {error}") from error


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


def _requantized(training: _Training, trial: Trial, rounding: HealRounding, done: Distilled | None) -> HealRecord:
    """Make the INT8 graphs that they help of the healed weights. For errors, see `requantize` and `Trial.run`."""
    rows = training.rows if done else training.rows.take(training.rounded)

    def make(record: HealRecord, judge: Check, accept: Accept) -> HealRecord:
        return requantize(
            training.bundle,
            training.resolved,
            training.student.weights(),
            record,
            learnt=[*rows.text_digests, *training.choosing.text_digests],
            judge=judge,
            accept=accept,
            log=trial.tell,
        )

    return trial.run(make, _record(training, rows, rounding, done))


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
        "held_out": len(training.held.tokens),
        "distance": {},
    }
