"""Parity: the differences of a graph's logits from those of its checkpoint, on sentences of different lengths."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from toolchain.base.tensors import Batch, Infer, Logits
from toolchain.checkpoint.tokenize import Tokens, batches
from toolchain.data.metrics import Values
from toolchain.errors import GateError
from toolchain.heads.predictions import same
from toolchain.records.bundle import ParityRecord

# Positions of a batch of rows of equal length.
MIXED_SLOTS = 512


@dataclass(frozen=True)
class Parity:
    """Differences from the reference over the compared rows; `label_agreement` is a share, 0 to 1."""

    rows: int
    max_abs_logit_difference: float
    rms_logit_difference: float
    label_agreement: float
    largest_logit: float
    finite: bool

    def to_json(self) -> ParityRecord:
        """Return the record that bundle.json holds."""
        return {
            "rows": self.rows,
            "max_abs_logit_difference": self.max_abs_logit_difference,
            "rms_logit_difference": self.rms_logit_difference,
            "label_agreement": self.label_agreement,
            "largest_logit": self.largest_logit,
            "finite": self.finite,
        }


def probe_batches(tokens: Tokens, *, longest: int | None = None) -> Iterable[Batch]:
    """Yield each row alone, then all rows in one batch with 5 more padded positions and a last row of padding only.

    No batch is longer than `longest` tokens, which the model may have positions for.

    If the model takes only rows of equal length, the rows of each length make a batch instead.
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
    """Run both on the probe batches; return the differences of `candidate` from `reference`.

    `decide` is that of the model's head. Rows without labels count as agreeing.

    A row without any real token is not compared, because its logits are undefined. They must be finite, unless those of
    the reference are not: a model that divides by the number of tokens has none for it.

    Raises:
        GateError: the logits of both have other shapes.
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
                f"for {len(batch['attention_mask'])} rows the graph returns logits of shape {list(found.shape)}, and "
                f"PyTorch of shape {list(expected.shape)}. Report the model's architecture as a bug of the export."
            )
        differences.append(np.abs(found[real] - expected).ravel())
        agreed = same(decide(found[real]), decide(expected))
        agreements.append(np.ones(len(expected), bool) if agreed is None else agreed)
    every, agreement = np.concatenate(differences), float(np.mean(np.concatenate(agreements)))
    return Parity(len(tokens), float(every.max()), float(np.sqrt(np.square(every).mean())), agreement, largest, finite)


def check(parity: Parity, *, where: str, atol: float) -> Parity:
    """Return `parity` if it is finite and within `atol`.

    Raises:
        GateError: a logit is not finite, or differs by more. The message begins with `where`.
    """
    if not parity.finite:
        raise GateError(f"{where}: computes NaN or infinity on a probe sentence. Report the model's architecture.")
    if parity.max_abs_logit_difference > atol:
        raise GateError(
            f"{where}: logits differ from PyTorch by {parity.max_abs_logit_difference:.2g}, more than {atol:g}. "
            "Run the checkpoint in PyTorch (--backend torch), and report its architecture."
        )
    return parity
