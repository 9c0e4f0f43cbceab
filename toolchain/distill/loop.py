"""The training loop: a student learns to reproduce the logits and hidden states of a teacher, on texts without labels.

    student = observed(module, layers)          # or Model(module, run) for anything else that gives `Activations`
    teacher = observed(original, their_layers)  # as many layers, of the same width
    done = distil(student, teacher, tokens, Settings(steps=400), divergence=DIVERGENCES[head.probabilities], key=key)

The parameters of the student's module that require gradients are trained in place; freeze the others first. Only the
order of the rows is random, and it follows from the seed; dropout is off. So the same seed, rows and number of steps
give the same weights to the last bit on the same machine with the same number of threads, even if a run was interrupted
and resumed from its state (state.py).
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from toolchain.base.processors import cpu_threads
from toolchain.base.progress import Advance, bar
from toolchain.checkpoint.facts import outputs
from toolchain.checkpoint.ragged import Indices
from toolchain.checkpoint.tokenize import Tokens, batches_of
from toolchain.distill.losses import Divergence, relative_distance
from toolchain.distill.state import Progress, State
from toolchain.errors import InputError, UsageError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# Steps over which the learning rate rises from nearly zero, so that Adam's running averages are reliable before the
# rate is high.
WARM_UP_STEPS = 32

# Fraction of the steps, at the end of the run, over which the learning rate falls to zero.
COOL_DOWN = 0.3

# Gradients are clipped to this norm, the usual value for transformers.
MAX_GRADIENT_NORM = 1.0

# Rows are sorted by length within groups of this many batches. This needs little padding and leaves the order random
# enough.
BATCHES_PER_SORT = 16

# Seconds between two lines of the log.
TELL_EVERY_S = 60.0

# The first and the last loss of a run are the means over this many steps.
LOSS_STEPS = 16

Inputs = Mapping[str, "torch.Tensor"]
"""Input name -> integers [batch, sequence]; `attention_mask` is among them."""


class Activations(NamedTuple):
    """The outputs of a model for one batch, which are compared between student and teacher.

    `logits` are [batch, outputs], or [batch, sequence, outputs] for a token classifier. `hidden` has the hidden states,
    each [batch, sequence, width]; it is empty if only logits are compared.
    """

    logits: "torch.Tensor"
    hidden: tuple["torch.Tensor", ...]


@dataclass(frozen=True)
class Model:
    """A student or a teacher: a module, and the function that runs it on a batch."""

    module: "torch.nn.Module"
    run: Callable[[Inputs], Activations]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The length and the hyperparameters of a training run. Exactly one of `steps` and `minutes` is given.

    With `minutes`, the number of steps is set once only the fraction COOL_DOWN of the time is left: it follows from the
    steps that are done by then. A run with that number as `steps` gives the same weights.
    """

    steps: int | None = None
    minutes: float | None = None
    seed: int = 0
    # Rows per step, and Adam's highest learning rate.
    rows: int = 32
    rate: float = 1e-4
    # Weight of the hidden states' distance in the loss; the divergence of the logits has weight 1.
    hidden: float = 1.0

    def __post_init__(self) -> None:
        """Raise UsageError if neither or both of `steps` and `minutes` are given, or the given one is not above 0."""
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("--steps, --minutes: give exactly one of these two options.")
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"--steps {self.steps}: too small. Give 1 or more.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise UsageError(f"--minutes {self.minutes:g}: it is not a number above 0. Give 15, for example.")


class Distilled(NamedTuple):
    """The result of a run: steps, rows seen, seconds, and the mean loss of its first and its last LOSS_STEPS steps."""

    steps: int
    rows: int
    seconds: float
    first_loss: float
    last_loss: float


def distil(
    student: Model,
    teacher: Model,
    tokens: Tokens,
    settings: Settings,
    *,
    divergence: Divergence,
    key: str,
    state: Path | None = None,
    tell: Callable[[str], None] = log.info,
) -> Distilled:
    """Train the student's module in place, on the device where both models are.

    Args:
        student: the model to train; it gives as many hidden states as the teacher, of the same width.
        teacher: the model to follow; it is not changed.
        tokens: the rows. Every row is seen once before any row is seen again.
        settings: the length and the hyperparameters of the run.
        divergence: the loss of the logits, one of DIVERGENCES in losses.py.
        key: a digest of both models and the rows, which identifies the run together with `settings`.
        state: file in which the run is saved, and from which an interrupted run resumes; None saves nothing. The file
            is not removed when the run ends. Remove it when the trained weights are stored, or to start a new run.
        tell: takes a line about the progress once a minute.

    Raises:
        InputError: the state is damaged or belongs to another run, or the loss is not finite.
    """
    import torch

    torch.set_num_threads(cpu_threads())
    for model in (student, teacher):
        model.module.eval()
    trained = {name: one for name, one in student.module.named_parameters() if one.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), lr=settings.rate, fused=True)
    kept = State(state, trained, optimizer)
    done = _begun(kept, f"{key} {settings}", settings, tell)
    device = next(iter(trained.values())).device
    with _Clock(settings, done, tell) as clock:
        for rows in _order(tokens, settings, skip=done["step"]):
            if not clock.goes_on():
                break
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * factor(done["step"], done["steps"])
            batch = {name: torch.from_numpy(array).long().to(device) for name, array in tokens.batch(rows).items()}
            clock.advance(_step(student, teacher, batch, optimizer, divergence, settings.hidden))
            kept.save_now_and_then(done)
    kept.save(done)
    losses, rows_seen = done["losses"], _rows_seen(tokens, settings, done["step"])
    return Distilled(done["step"], rows_seen, done["seconds"], _mean(losses[:LOSS_STEPS]), _mean(losses[-LOSS_STEPS:]))


def _begun(kept: State, key: str, settings: Settings, tell: Callable[[str], None]) -> Progress:
    """Restore an interrupted run and return its progress; without one, return the progress of a new run."""
    found = kept.restore(key)
    if found:
        tell(f"resuming an interrupted run after step {found['step']:,}")
    return found or {"key": key, "step": 0, "steps": settings.steps, "seconds": 0.0, "losses": []}


def _mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses)


def observed(module: "torch.nn.Module", layers: Sequence["torch.nn.Module"]) -> Model:
    """Return a checkpoint's module as a `Model` whose hidden states are the outputs of its submodules `layers`."""

    def run(inputs: Inputs) -> Activations:
        hidden: list[torch.Tensor] = []

        # A layer returns its states, or a tuple that begins with them.
        def keep(_: object, __: object, output: Any) -> None:
            hidden.append(output[0] if isinstance(output, tuple) else output)

        handles = [layer.register_forward_hook(keep) for layer in layers]
        try:
            return Activations(outputs(module, inputs), tuple(hidden))
        finally:
            for handle in handles:
                handle.remove()

    return Model(module, run)


def factor(step: int, steps: int | None) -> float:
    """Return the learning rate at a step (the first is 0) as a fraction of the highest; `steps` is None if unknown."""
    rising = (step + 1) / WARM_UP_STEPS
    falling = 1.0 if steps is None else (steps - step) / (COOL_DOWN * steps)
    return min(1.0, rising, falling)


def _step(
    student: Model,
    teacher: Model,
    batch: Inputs,
    optimizer: "torch.optim.Optimizer",
    divergence: Divergence,
    hidden: float,
) -> float:
    """Train the student on one batch, and return the loss before its weights were updated."""
    import torch

    with torch.no_grad():
        wanted = teacher.run(batch)
    found = student.run(batch)
    real = batch["attention_mask"].bool()
    logits = [one.logits[real] if one.logits.ndim == 3 else one.logits for one in (found, wanted)]
    loss = divergence(logits[0], logits[1])
    if wanted.hidden:
        loss = loss + hidden * relative_distance(found.hidden, wanted.hidden, real)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch
    trained = [one for group in optimizer.param_groups for one in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, MAX_GRADIENT_NORM)
    optimizer.step()
    return float(loss.detach())


def _order(tokens: Tokens, settings: Settings, *, skip: int = 0) -> Iterator[Indices]:
    """Yield batches of row indices endlessly, in passes over all rows; the first `skip` batches are left out."""
    epoch = 0
    while True:
        made = _epoch(tokens, settings, epoch)
        yield from made[skip:]
        skip, epoch = max(0, skip - len(made)), epoch + 1


def _epoch(tokens: Tokens, settings: Settings, epoch: int) -> list[Indices]:
    """Return the batches of one pass over all rows, in random order; the rows of a batch have similar lengths."""
    generator = np.random.default_rng([settings.seed, epoch])
    order, window = generator.permutation(len(tokens)), settings.rows * BATCHES_PER_SORT
    made: list[Indices] = []
    for start in range(0, len(order), window):
        part = order[start : start + window]
        made += [part[rows] for rows in batches_of(tokens.take(part), settings.rows)]
    return [made[at] for at in generator.permutation(len(made))]


def _rows_seen(tokens: Tokens, settings: Settings, steps: int) -> int:
    """Return the number of rows in the batches of the first `steps` steps."""
    return sum(len(rows) for rows, _ in zip(_order(tokens, settings), range(steps), strict=False))


class _Clock:
    """Counts the steps and seconds of a run, sets the number of steps if --minutes is given, and shows the progress."""

    def __init__(self, settings: Settings, done: Progress, tell: Callable[[str], None]) -> None:
        self._limit_s = None if settings.minutes is None else 60 * settings.minutes
        self._done, self._tell, self._shown = done, tell, 0
        whole = settings.steps if self._limit_s is None else math.ceil(self._limit_s)
        self._bar: AbstractContextManager[Advance] = bar(whole, "distilling")

    def __enter__(self) -> "_Clock":
        self._advance = self._bar.__enter__()
        self._last_s = self._told_s = time.monotonic()
        self._show()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def goes_on(self) -> bool:
        """Return whether another step is to be done. With --minutes, set the number of steps before the cool-down."""
        done = self._done
        if done["steps"] is None and self._limit_s and done["seconds"] >= (1 - COOL_DOWN) * self._limit_s:
            # With this total, the cool-down begins now, so the steps so far had the same learning rates as in a run
            # with --steps.
            done["steps"] = max(done["step"] + 1, math.ceil(done["step"] / (1 - COOL_DOWN)))
        return done["steps"] is None or done["step"] < done["steps"]

    def advance(self, loss: float) -> None:
        """Count a step, and show the progress. Raise InputError if the loss of the step is not finite."""
        done, now_s = self._done, time.monotonic()
        if not math.isfinite(loss):
            raise InputError(
                f"distillation: the loss of step {done['step'] + 1} is {loss}. Check that the checkpoint's weights and "
                "logits are finite."
            )
        done["seconds"] += now_s - self._last_s
        done["step"] += 1
        done["losses"].append(loss)
        self._last_s = now_s
        self._show()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            self._tell(f"distilling: {self._text()}")

    def _text(self) -> str:
        """Return a text with the current step, the loss, and an estimate of the time that is left."""
        done = self._done
        if done["steps"] is None:
            of, left_s = "", (self._limit_s or 0.0) - done["seconds"]
        else:
            of, left_s = f" of {done['steps']:,}", done["seconds"] / done["step"] * (done["steps"] - done["step"])
        loss = _mean(done["losses"][-LOSS_STEPS:])
        return f"step {done['step']:,}{of}, loss {loss:.4f}, about {max(left_s, 0.0) / 60:.1f} minutes left"

    def _show(self) -> None:
        """Advance the progress bar to the step that is done, or with --minutes to the seconds that have passed."""
        now = self._done["step"] if self._limit_s is None else int(self._done["seconds"])
        if now > self._shown:
            self._advance(now - self._shown)
            self._shown = now
