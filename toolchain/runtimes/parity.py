"""Parity: how far a graph's logits differ from those of its checkpoint in PyTorch, on sentences of many lengths."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from toolchain.base.tensors import Batch, Infer, Logits
from toolchain.checkpoint.tokenize import Tokens, batches
from toolchain.data.metrics import Values
from toolchain.errors import GateError
from toolchain.heads.predictions import same
from toolchain.records.bundle import ParityRecord

# Positions per batch for a model that takes only rows of equal length in a batch.
MIXED_SLOTS = 512

# The advice in the error messages of `check`.
ADVICE = (
    "Run the checkpoint in PyTorch instead (`toolchain eval --backend torch`), and report this with the model's "
    "architecture."
)


@dataclass(frozen=True)
class Parity:
    """The differences of a candidate's logits from the reference's over the compared rows.

    `label_agreement` is the fraction of rows with the same label. `largest_logit` is the largest |logit| of the
    reference. `finite` is False if a logit is NaN or infinite.
    """

    rows: int
    max_abs_logit_difference: float
    rms_logit_difference: float
    label_agreement: float
    largest_logit: float
    finite: bool

    def to_json(self) -> ParityRecord:
        """Return the differences as a record for bundle.json."""
        return {
            "rows": self.rows,
            "max_abs_logit_difference": self.max_abs_logit_difference,
            "rms_logit_difference": self.rms_logit_difference,
            "label_agreement": self.label_agreement,
            "largest_logit": self.largest_logit,
            "finite": self.finite,
        }


def probe_batches(tokens: Tokens, *, longest: int | None = None) -> Iterable[Batch]:
    """Yield batches that test a graph: each row alone, then all rows together with an extra row of padding only.

    The batch of all rows is padded to 5 positions more than its longest row, but not beyond `longest` tokens, the
    largest length that the model takes. If a model takes only rows of equal length in a batch, that batch is replaced
    by batches of the rows of each length.
    """
    for index in range(len(tokens)):
        yield tokens.batch(np.array([index]))
    if tokens.equal_length:
        yield from (tokens.batch(rows) for rows in batches(tokens, max_slots=MIXED_SLOTS))
        return
    length = int(tokens.lengths.max()) + 5
    mixed = tokens.batch(np.arange(len(tokens)), length=min(length, longest or length))
    empty = {name: np.full_like(array[:1], tokens.pad_values[name]) for name, array in mixed.items()}
    yield {name: np.concatenate([array, empty[name]]) for name, array in mixed.items()}


def compare(
    reference: Infer,
    candidate: Infer,
    tokens: Tokens,
    *,
    decide: Callable[[Logits], Values],
    longest: int | None = None,
) -> Parity:
    """Run `reference` and `candidate` on the probe batches; return the differences of the candidate's logits.

    `decide` turns logits into predictions (`Head.decide`). If predictions are numbers, all rows count as agreeing.

    A row without any real token is not compared, because its logits are undefined. The candidate's must be finite,
    however, if the reference's are. (A model that divides by the number of tokens computes NaN for such a row.)

    Raises:
        GateError: the candidate's logits have another shape than the reference's.
    """
    differences, agreements, largest, finite = [], [], 0.0, True
    for batch in probe_batches(tokens, longest=longest):
        real = batch["attention_mask"].any(axis=1)
        expected = reference({name: array[real] for name, array in batch.items()})
        found = candidate(batch)
        finite = finite and bool(np.isfinite(found[real]).all() and np.isfinite(expected).all())
        if not np.isfinite(found[~real]).all():
            finite = finite and not np.isfinite(reference({name: array[~real] for name, array in batch.items()})).all()
        largest = max(largest, float(np.abs(expected).max()))
        if found.shape[1:] != expected.shape[1:] or len(found) != len(batch["attention_mask"]):
            raise GateError(
                f"for {len(batch['attention_mask'])} rows the graph returns logits of shape {list(found.shape)}, but "
                f"PyTorch returns {list(expected.shape)}. Report this with the model's architecture."
            )
        differences.append(np.abs(found[real] - expected).ravel())
        agreed = same(decide(found[real]), decide(expected))
        agreements.append(np.ones(len(expected), bool) if agreed is None else agreed)
    every, agreement = np.concatenate(differences), float(np.mean(np.concatenate(agreements)))
    return Parity(len(tokens), float(every.max()), float(np.sqrt(np.square(every).mean())), agreement, largest, finite)


def check(parity: Parity, *, where: str, atol: float) -> Parity:
    """Return `parity` if the candidate's logits are finite and differ from the reference's by at most `atol`.

    Raises:
        GateError: a logit is not finite, or differs by more than `atol`. The message begins with `where`.
    """
    if not parity.finite:
        raise GateError(f"{where}: it computes NaN or infinity on a probe sentence. {ADVICE}")
    if parity.max_abs_logit_difference > atol:
        raise GateError(
            f"{where}: logits differ from PyTorch by {parity.max_abs_logit_difference:.2g}, more than {atol:g}. "
            f"{ADVICE}"
        )
    return parity
