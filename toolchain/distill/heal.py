"""`toolchain heal`: chooses the weights of a bundle's INT8 graphs anew, so that their logits come close to FP32's.

First the weights of each GEMM are rounded so that their errors cancel (reconstruct.py, choose.py). Then, if --steps or
--minutes is given, all weights are trained: the student is the pair of INT8 graphs with their rounding
(fake_quantize.py), and the teacher is the bundle's FP32 graph. Neither of these two steps reads labels. Only the gate
does, which compares the accuracy of INT8 with that of FP32. The calibrated ranges of activations do not change. Finally
the build step that made the INT8 graphs makes them again from the healed weights. A graph that is not better with them
keeps the checkpoint's weights (accept.py).
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

# Points of the metric that INT8 may lose if neither --max-drop nor the bundle's recipe gives a limit.
DEFAULT_MAX_DROP = 0.5

# Held-out rows: train rows that are not trained on. On them, INT8 must be nearer to FP32 after healing than before.
# There are HELD_OUT_ROWS of them, but at most one in HELD_OUT_SHARE train rows.
HELD_OUT_ROWS, HELD_OUT_SHARE = 512, 8

# Further train rows that are not trained on: the best rounding is chosen on them. There is at most one in
# HELD_OUT_SHARE train rows.
CHOSEN_ROWS = 256

# Least number of held-out rows. With fewer, the result may depend on a few texts. Calibration also warns below this
# number of rows.
LEAST_HELD_OUT = 32

# Rows on which the student is compared with the graphs before it is trained.
PROVED_ROWS = 16

# At each Q/DQ site, the student's activation may differ from the graph's by the fraction TOLERANCE of its largest
# value. The fraction ROUNDED of its integers may be one level away, because values halfway between two levels can be
# rounded to either.
TOLERANCE, ROUNDED = 1e-3, 1e-2

# Adam's highest learning rate. It is low because the weights are trained already and should move by about one INT8
# level.
RATE = 2e-5

Tell = Callable[[str], None]
"""Takes one line of text about the progress."""


def heal(
    changes: RecipeValues,
    bundle: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    tell: Tell = log.info,
) -> Healed:
    """Round the weights of an INT8 bundle anew if the gate does not pass, and use them in the graphs that improve.

    With `steps` or `minutes` the rounded weights are then trained. `changes` has recipe options by name; with the
    option `force`, a bundle is healed even if the gate passes. To resume an interrupted training, call this function
    again: until the new graphs are in place, a file beside the bundle has the state of the training.

    Raises:
        GateError: no INT8 graph came nearer to FP32 without a worse verdict in the gate.
        UsageError: the bundle is the current folder.
        InputError: the bundle is not INT8, its checkpoint is missing, its graphs cannot be trained, or it lacks rows.
        ToolchainError: see errors.py. The bundle is unchanged after any error.
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
        state.unlink(missing_ok=True)  # a failed run is not resumed: the next one has other options
        raise
    state.unlink(missing_ok=True)
    tell("gate: timing against FP32")
    return {"bundle": str(bundle), "before": before, "heal": record, **_deployed(bundle, recipe, trial.after)}


def _deployed(bundle: Path, recipe: Recipe, after: Sequence[Judged]) -> Gated:
    """Return the gate's comparisons of the healed bundle with FP32, and the artefact that the gate recommends."""
    comparisons = [one.comparison for one in after]
    deploy = advise_deployment(bundle, recipe, [one.result for one in after], comparisons)
    return {"gate": comparisons, "deploy": deploy}


def _check(opened: Bundle) -> None:
    """Refuse a bundle that cannot be healed, or that is the current folder, before anything runs."""
    opened.require_one_model("heal")
    if opened.path.resolve() == Path.cwd():
        raise UsageError(f"{opened.path}: the current folder cannot be replaced. Change to another folder first.")
    if opened.manifest["precision"] != "int8" or "calibration.json" not in opened.manifest["artefacts"]:
        raise InputError(
            f"{opened.path}: the bundle is not in INT8. Build an INT8 bundle: toolchain build --precision int8."
        )


def _state_of(opened: Bundle) -> Path:
    """Return the file for the state of a training run, and remove state files of runs that began with other graphs.

    The name of the file has a digest of the graphs that the run began with. A run that was killed after its new graphs
    were in place leaves an outdated file.
    """
    place, artefacts = opened.path.resolve(), opened.manifest["artefacts"]
    start, graphs = f".{place.name}.heal-", sha256_json([made_of(artefacts), artefacts.get(FILE)])
    state = place.parent / f"{start}{graphs[:16]}"
    for other in place.parent.glob(f"{glob.escape(start)}*"):
        if other != state:
            other.unlink(missing_ok=True)
    return state


def judge_healed(found: Healed, recipe: Recipe) -> None:
    """Raise an error if the gate of a bundle fails after healing, as a build does.

    Raises:
        GateError: see `judge`.
    """
    way_on = found["deploy"]["next"] if "deploy" in found else None
    judge(found.get("gate", []), strict=recipe.strict, way_on=way_on)


@dataclass(frozen=True)
class _Training:
    """What healing needs: the bundle's student, the rows to learn from and to choose on, and the held-out rows."""

    bundle: Bundle
    resolved: ResolvedRecipe
    student: Student
    rows: Rows
    tokens: Tokens
    # Indices of the train rows on which the weights are rounded.
    rounded: Indices
    # Rows on which the best rounding is chosen, and their tokens.
    choosing: Rows
    choosing_tokens: Tokens
    held: Held


def _begin(opened: Bundle, resolved: ResolvedRecipe) -> _Training:
    """Load the student, and divide the train rows into rows to learn from, rows to choose on, and held-out rows.

    Raises:
        InputError: the graphs cannot be trained, or the rows are too few.
    """
    recipe, rows = resolved.recipe, resolved.train_rows.without(())  # without repeated texts
    if len(rows) < HELD_OUT_SHARE * LEAST_HELD_OUT:
        raise InputError(
            f"{rows.source}: {len(rows):,} different texts are too few to heal with. An eighth of them is held out to "
            f"test the result, which needs at least {LEAST_HELD_OUT}. Give {HELD_OUT_SHARE * LEAST_HELD_OUT} or more "
            "texts in train.* or with --calib-data."
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
    """Return the indices of randomly drawn rows that have about TOKENS tokens in total, in rising order."""
    order = np.random.default_rng(seed).permutation(len(tokens))
    count = int(np.searchsorted(tokens.lengths[order].cumsum(), TOKENS)) + 1
    return np.sort(order[:count])


def _round(training: _Training, tell: Tell) -> HealRounding:
    """Check that the student computes what the INT8 graphs compute, and round its weights anew on some of the rows.

    Raises:
        InputError: the student computes something else, or PyTorch cannot run it on these rows.
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
    """Train the student on all rows to learn from. For errors, see `distil`."""
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
    """Check at each Q/DQ site of the student's graphs that PyTorch computes what ONNX Runtime computes.

    Raises:
        InputError: an activation differs by more than the fraction TOLERANCE of its largest value, more than the
            fraction ROUNDED of its values is rounded to another level, or PyTorch cannot run the graph.
    """
    for file, made in student.graphs.items():
        try:
            found = compare_sites(made, tokens)
        except InputError as error:
            raise InputError(f"{folder / file}: cannot be healed: {error}") from error
        if not (found.relative <= TOLERANCE and found.rounded <= ROUNDED):
            raise InputError(
                f"{folder / file}: cannot be healed: PyTorch's activations differ from ONNX Runtime's by up to "
                f"{found.relative:.2g} times the largest value, and up to {found.rounded:.2%} of a tensor's values are "
                "rounded to another INT8 level. Exclude GEMMs from INT8 instead: toolchain tune."
            )


def _requantized(training: _Training, trial: Trial, rounding: HealRounding, done: Distilled | None) -> HealRecord:
    """Make INT8 graphs anew from the healed weights, where these improve a graph; return the record.

    For errors, see `requantize` and `Trial.run`.
    """
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
