"""`toolchain shrink`: a checkpoint with fewer layers and narrower feed-forward blocks, trained to follow the original.

The result is an ordinary checkpoint that transformers can load and `toolchain build` accepts. Its file `shrink.json`
records how it was made.
"""

import logging
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from toolchain.base.files import let_everybody_read, parents_of, replacing, sha256_json, write_json
from toolchain.bundle import locked
from toolchain.bundle.learnt import OF_CHECKPOINT, read_learnt, write_learnt
from toolchain.bundle.resolved_recipe import ResolvedRecipe, resolve
from toolchain.checkpoint.model import CODE_FILES, find_model, load_model
from toolchain.checkpoint.shrunk import FILE
from toolchain.checkpoint.stored_tokenizer import tokenizer_files
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data import demo
from toolchain.data.metrics import METRICS
from toolchain.diagnose.gate import judge
from toolchain.distill.anatomy import Anatomy, find_anatomy
from toolchain.distill.cut import Cut, Shape, count_work, cut, shape_of, shapes_for_speed
from toolchain.distill.loop import Distilled, Settings, distil, observed
from toolchain.distill.losses import DIVERGENCES
from toolchain.distill.options import Options
from toolchain.distill.rows import Chosen, Evaluated, choose_rows, is_texts, recipe_of
from toolchain.errors import InputError, ToolchainError, UsageError
from toolchain.evaluation.compare import compare
from toolchain.heads.predictions import Predictions
from toolchain.recipe import Recipe
from toolchain.recipe.groups import MODEL_AND_TASK
from toolchain.recipe.options import CONSENT, RecipeValues
from toolchain.records.comparison import NamedComparison
from toolchain.records.shrink import ShrinkRecord, ShrinkScores, Shrunk
from toolchain.runtimes.batched import run_texts
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.pytorch import forward, has_gpu

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

# Number of rows on which the importance of layers and neurons is measured.
MEASURED_ROWS = 1024

# What sentence-transformers saves beside the files of the encoder and its tokenizer.
MODULE_FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "*_*/config.json")

Tell = Callable[[str], None]
"""Takes one line of text about the progress."""


def shrink(changes: RecipeValues, options: Options, output: Path, *, tell: Tell = log.info) -> Shrunk:
    """Cut a copy of a checkpoint, train it to follow the original, and write the result to the folder `output`.

    `changes` has recipe options by name. This function compares the result with the original for the gate, but raises
    no GateError; call `judge_shrunk` for that. To resume an interrupted training, call this function again: until the
    result is written, a file beside `output` has the state of the training.

    Raises:
        InputError: the model cannot be cut, there are too few texts, or `output` exists and may not be replaced.
        UsageError: an option is out of range for the model.
        ToolchainError: see errors.py.
    """
    recipe, target = recipe_of(changes).replace(precision="fp32"), output.resolve()
    _check_output(target, output, recipe)
    resolved = resolve(recipe)
    chosen = choose_rows(resolved)
    state = target.parent / f".{target.name}.shrink"
    with parents_of(target), locked(target):
        _check_output(target, output, recipe)  # another call may have written it while this one waited for the lock
        if recipe.force:
            state.unlink(missing_ok=True)
        student = _cut(resolved, chosen, options, tell)
        done = _train(student, options, state, tell)
        with replacing(target) as folder:
            _write(student, folder)
            tell("evaluating")
            scores, comparison = _evaluate(student, folder, name=str(output))
            record = _record(student, done, scores)
            write_json(folder / FILE, record)
        state.unlink(missing_ok=True)
    found: Shrunk = {"checkpoint": str(output), "shrink": record, "next": _next(resolved, output)}
    if comparison:
        found["gate"] = comparison
    return found


def judge_shrunk(found: Shrunk, recipe: Recipe) -> None:
    """Raise an error if a result fails its gate; without a gate, do nothing.

    Raises:
        GateError: see `judge`.
    """
    advice = "Give more --steps, or cut less."
    judge([found["gate"]] if "gate" in found else [], strict=recipe.strict, advice=advice)


def _check_output(target: Path, output: Path, recipe: Recipe) -> None:
    """Refuse an output folder that is the model, that shrink did not make, or that exists and --force is not given."""
    if not target.exists():
        return
    if recipe.model and target == Path(recipe.model).resolve():
        raise UsageError(f"-o {output}: it is the model itself, which would be replaced. Choose another folder.")
    if not (target / FILE).is_file():
        raise InputError(f"{output}: it exists already and was not made by shrink. Choose another folder with -o.")
    if not recipe.force:
        raise InputError(f"{output}: it exists already. Choose another folder with -o, or give --force to replace it.")


@dataclass(frozen=True)
class _Student:
    """A student, before or after its training: its teacher, the cut copy of the teacher, and the rows.

    `before` has the predictions after the cut and before the training; None if there are no labelled rows.
    """

    resolved: ResolvedRecipe
    chosen: Chosen
    tokens: Tokens
    teacher: Anatomy
    cut: Cut
    before: Predictions | None

    @property
    def model(self) -> "PreTrainedModel":
        """The student itself, a PyTorch module."""
        return self.cut.anatomy.model


def _cut(resolved: ResolvedRecipe, chosen: Chosen, options: Options, tell: Tell) -> _Student:
    """Load the teacher, and return a cut copy of it as the student."""
    folder, seed = resolved.source.folder, resolved.recipe.seed
    device = choose_device(resolved.recipe.device, cuda=has_gpu())
    teacher = find_anatomy(load_model(resolved.source).to(device), folder)
    with chosen.rows.placed():
        tokens = resolved.encode(chosen.rows.texts)
    if options.target_speed is None:
        shapes = [shape_of(teacher, ffn=options.ffn, layers=options.layers)]
    else:
        shapes = shapes_for_speed(count_work(teacher, _mean_tokens(tokens)), options.target_speed)
    tell("measuring which layers and neurons matter")
    sample = np.sort(np.random.default_rng(seed).choice(len(tokens), min(MEASURED_ROWS, len(tokens)), replace=False))
    centred = resolved.head.probabilities == "softmax"
    found = cut(teacher.model, shapes, tokens.take(sample), seed=seed, centred=centred, folder=folder)
    before = _predictions(resolved, found.anatomy.model, chosen.evaluated)
    return _Student(resolved, chosen, tokens, teacher, found, before)


def _mean_tokens(tokens: Tokens) -> int:
    return round(float(tokens.lengths.mean()))


def _train(student: _Student, options: Options, state: Path, tell: Tell) -> Distilled:
    """Train the student. The embedding tables stay frozen: they are the teacher's, and hold most of the weights."""
    import torch

    resolved, (kept, count) = student.resolved, (student.cut.layers, len(student.teacher.blocks))
    for module in student.model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.requires_grad_(False)
    # A kept layer is trained to return the states that the next kept layer received in the teacher, so its target is
    # the teacher's layer just before that next one.
    ends = [*(following - 1 for following in kept[1:]), count - 1]
    teacher_layers = student.teacher.layers
    key = [resolved.source.digests, student.chosen.rows.digest, resolved.max_length, kept, student.cut.neurons]
    return distil(
        observed(student.model, student.cut.anatomy.layers),
        observed(student.teacher.model, [teacher_layers[at] for at in ends]),
        student.tokens,
        Settings(steps=options.steps, minutes=options.training_minutes, seed=resolved.recipe.seed),
        divergence=DIVERGENCES[resolved.head.probabilities],
        key=sha256_json(key),
        state=state,
        tell=tell,
    )


def _write(student: _Student, folder: Path) -> None:
    """Write the student as an ordinary checkpoint: its weights and configuration, and copies of the other files."""
    source, cut = student.resolved.source, student.cut
    names = {*tokenizer_files(source.tokenizer, source.folder)}
    patterns = (*MODULE_FILES, *(CODE_FILES if source.trust_remote_code else ()))
    names |= {str(file.relative_to(source.folder)) for one in patterns for file in source.folder.glob(one)}
    student.model.to("cpu").save_pretrained(folder)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source.folder / name, folder / name)
    config = student.teacher.stated(source.config, cut.layers, cut.anatomy.width)
    config = {key: value for key, value in config.items() if key != "torch_dtype"}
    write_json(folder / "config.json", {**config, "dtype": "float32"})
    before = read_learnt(source.folder / OF_CHECKPOINT)  # not empty if the original was shrunk itself
    write_learnt(folder / OF_CHECKPOINT, [*before, *student.chosen.rows.text_digests])
    let_everybody_read(folder)  # the file of the weights is written so that only its owner can read it


def _evaluate(student: _Student, folder: Path, *, name: str) -> tuple[ShrinkScores | None, NamedComparison | None]:
    """Return the metric of the original, the cut model before training and the written model, and a comparison.

    The comparison of the written model with the original is for the gate, and None without --max-drop. Both results
    are None without labelled rows. Errors name the checkpoint `name`.
    """
    resolved, evaluated = student.resolved, student.chosen.evaluated
    source = resolved.source
    try:
        written = load_model(
            find_model(
                str(folder),
                trust_remote_code=source.trust_remote_code,
                ignore_unused=source.ignore_unused,
                pooling=source.pooling,
            )
        )
    except ToolchainError as error:  # `folder` is temporary and is gone when the message is read
        raise type(error)(str(error).replace(str(folder), name)) from error
    if evaluated is None or student.before is None:
        log.warning(
            "there are no labelled rows to evaluate, so the loss of accuracy is unknown. "
            "Give --data a folder with labelled rows in a validation file, such as validation.csv."
        )
        return None, None
    original, shrunk = (_predictions(resolved, model, evaluated) for model in (student.teacher.model, written))
    assert original
    assert shrunk
    recipe, metric = resolved.recipe, resolved.task.primary
    values = [METRICS[metric](one.references, one.predicted) for one in (original, student.before, shrunk)]
    scores: ShrinkScores = {
        "metric": metric,
        "n": len(evaluated.rows),
        "original": values[0],
        "cut": values[1],
        "shrunk": values[2],
    }
    if recipe.max_drop is None:
        return scores, None
    found = compare(
        original, shrunk, metric, confidence=recipe.confidence, max_drop=recipe.max_drop, seed=recipe.seed
    ).to_json()
    rows = {"task": resolved.task.name, "split": recipe.split, "n": len(evaluated.rows)}
    names = {"baseline_name": source.name, "candidate_name": name, "data_sha256": evaluated.rows.digest}
    return scores, cast(NamedComparison, {**names, **rows, **found})


def _predictions(resolved: ResolvedRecipe, model: "PreTrainedModel", evaluated: Evaluated | None) -> Predictions | None:
    if evaluated is None:
        return None
    texts = evaluated.rows.texts
    logits = run_texts(partial(forward, model), resolved.encode, texts).logits
    return resolved.head.about(texts).predict(evaluated.references, logits)


def _record(student: _Student, done: Distilled, scores: ShrinkScores | None) -> ShrinkRecord:
    resolved, chosen, cut, whole = student.resolved, student.chosen, student.cut, student.teacher
    name, work = resolved.source.name, count_work(whole, _mean_tokens(student.tokens))
    left = Shape(len(cut.layers), cut.anatomy.width)
    sizes = [sum(one.numel() for one in model.parameters()) for model in (whole.model, student.model)]
    local = name not in demo.MODELS and Path(name).is_dir()
    return {
        "teacher": {"id": str(Path(name).resolve()) if local else name, "sha256": resolved.source.digests},
        "ffn": {"before": whole.width, "after": left.width},
        "layers": {"before": len(whole.blocks), "after": left.layers},
        "layers_kept": [*cut.layers],
        "macs_ratio": work.share(left),
        "parameters": {"before": sizes[0], "after": sizes[1]},
        "rows": len(chosen.rows),
        "rows_left_out": chosen.left_out,
        "data_sha256": chosen.rows.digest,
        "rows_seen": done.rows,
        "steps": done.steps,
        "seconds": done.seconds,
        "seed": resolved.recipe.seed,
        "loss": {"first": done.first_loss, "last": done.last_loss},
        "scores": scores,
    }


def _next(resolved: ResolvedRecipe, output: Path) -> str:
    """Return the command that builds an INT8 bundle of the result, with the same options as for the original."""
    keys = (*MODEL_AND_TASK[2:], "split", "max_length", *CONSENT)
    task = resolved.recipe.task or resolved.task.name
    options = ["--task", task, *resolved.recipe.flags(keys), "--precision", "int8"]
    if is_texts(resolved.recipe):  # a build needs labels
        options[options.index("--data") + 1] = "LABELLED_ROWS"
    return shlex.join(["toolchain", "build", "-m", str(output), *options])
