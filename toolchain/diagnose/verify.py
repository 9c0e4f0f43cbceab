"""Does an artefact give each row its own logits, whatever it is batched with, however it is padded?

A row alone and unpadded is what it is compared with. Differences are the largest of any logit.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.checkpoint.model import Source
from toolchain.checkpoint.tokenize import Tokens
from toolchain.diagnose.probe import ProbeGraph
from toolchain.errors import GateError
from toolchain.runtimes import open_runtime
from toolchain.runtimes.distance import Logits
from toolchain.tensors import Batch, Infer

BATCHES = (2, 7, 32)
LENGTHS = (16, 64, 128)

INVARIANCE = {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.05, "int8": 0.05}
"""Largest difference that batch, padding or order may make, to the largest logit. Float sums depend on their order;
in INT8 a value on the edge between two steps then falls to the other side."""

PARITY = {"fp32": 1e-4, "fp16": 0.05, "bf16": 0.1, "int8": 0.15}
"""Root mean square difference from FP32 over the rows, to that of the FP32 logits."""


@dataclass(frozen=True)
class Case:
    """One thing that was tried. `difference` is None where there was nothing to compare; the note then says what."""

    name: str
    difference: float | None
    tolerance: float | None
    passed: bool
    note: str = ""


def verify(probe: ProbeGraph) -> dict[str, Any]:
    """Run every case and return them as JSON.

    Raises:
        ToolchainError: the artefact cannot be run at all.
    """
    with open_runtime(probe.backend, probe.model, **probe.choices) as infer:
        cases = list(_cases(probe, infer))
    return {
        "artefact": str(probe.file),
        "precision": probe.precision,
        "rows": probe.rows,
        "cases": [asdict(case) for case in cases],
        "passed": all(case.passed for case in cases),
    }


def judge(found: dict[str, Any]) -> None:
    """Refuse what failed a case.

    Raises:
        GateError: naming the first.
    """
    failed = [case for case in found["cases"] if not case["passed"]]
    if failed:
        first = failed[0]
        how = first["note"] or f"logits differ by {first['difference']:.2g}, {first['tolerance']:.2g} allowed"
        raise GateError(
            f"{found['artefact']}: {first['name']}: {how}. Do not ship it; see what differs: toolchain explain."
        )


def _cases(probe: ProbeGraph, infer: Infer) -> Iterator[Case]:
    tokens = probe.tokens
    alone = _alone(infer, tokens)
    largest = max(1.0, float(np.abs(alone[np.isfinite(alone)]).max(initial=0)))
    allowed = INVARIANCE[probe.precision] * largest

    def same(name: str, found: Logits, expected: Logits = alone) -> Case:
        finite = bool(np.isfinite(found).all())
        if not finite:
            return Case(name, None, allowed, False, "not finite")
        difference = float(np.abs(found - expected).max())
        return Case(name, difference, allowed, difference <= allowed)

    everyone = np.arange(len(tokens))
    for size in BATCHES:
        rows = np.resize(everyone, max(size, len(tokens)) // size * size)
        parts = [infer(tokens.batch(part)) for part in rows.reshape(-1, size)]
        yield same(f"in batches of {size}", np.concatenate(parts), alone[rows])
    for length in (*[length for length in LENGTHS if length < probe.max_length], probe.max_length):
        rows = everyone[tokens.lengths <= length]
        if len(rows):
            padded = [infer(tokens.batch(np.array([row]), length=length)) for row in rows]
            yield same(f"padded to {length}", np.concatenate(padded), alone[rows])
    shuffled = np.random.default_rng(0).permutation(everyone)
    yield same("in another order", infer(tokens.batch(shuffled)), alone[shuffled])
    yield _row_of_padding(tokens, infer, same)
    yield from _odd_rows(probe, infer, same)
    yield _beyond_the_vocabulary(probe, infer, same)
    if probe.fp32:
        yield _parity(probe, probe.fp32, alone)
    elif probe.precision != "fp32":
        yield Case("parity with FP32", None, None, True, "not looked at: nothing in FP32 beside it")


def _alone(infer: Infer, tokens: Tokens) -> Logits:
    return np.concatenate([infer(tokens.batch(np.array([row]))) for row in range(len(tokens))])


def _row_of_padding(tokens: Tokens, infer: Infer, same: Callable[..., Case]) -> Case:
    """Put a row without any real token first: it must be finite, and change no other."""
    batch = tokens.batch(np.arange(len(tokens)))
    empty = {name: np.full_like(array[:1], tokens.pad_values[name]) for name, array in batch.items()}
    found = infer({name: np.concatenate([empty[name], array]) for name, array in batch.items()})
    if not np.isfinite(found[0]).all():
        return Case("beside a row of padding", None, None, False, "the row of padding is not finite")
    return same("beside a row of padding", found[1:])


def _odd_rows(probe: ProbeGraph, infer: Infer, same: Callable[..., Case]) -> Iterator[Case]:
    """Try the longest row, an empty text and words that the vocabulary lacks, alone and in one batch with others."""
    ids = probe.tokens.columns["input_ids"]
    first, last = ids[0][0], ids[0][-1]
    middle = [token for row in ids for token in row[1:-1]] or [first]
    longest = [first, *np.resize(middle, max(0, probe.max_length - 2)).tolist(), last]
    rows = {
        f"of {probe.max_length} tokens": longest,
        "of an empty text": probe.empty.columns["input_ids"][0],
        "of unknown words": [first, *[probe.unknown_id] * 5, last],
    }
    for name, row in rows.items():
        columns = {
            "input_ids": [row, ids[0]],
            "attention_mask": [[1] * len(row), [1] * len(ids[0])],
            "token_type_ids": [[0] * len(row), [0] * len(ids[0])],
        }
        both = Tokens({key: columns[key] for key in probe.tokens.columns}, probe.tokens.pad_values)
        yield same(f"a row {name}", infer(both.batch(np.arange(2))), _alone(infer, both))


def _beyond_the_vocabulary(probe: ProbeGraph, infer: Infer, same: Callable[..., Case]) -> Case:
    """Try an id that the vocabulary has not: it must be refused, or be finite, and leave the next call as it was."""
    batch: Batch = probe.tokens.batch(np.array([0]))
    ids = batch["input_ids"].copy()
    ids[0, -1] = probe.vocabulary
    name = "an id beyond the vocabulary"
    if probe.backend == "torch" and (probe.device != "cpu" or probe.choices.get("compiled")):
        return Case(name, None, None, True, "not looked at: PyTorch, compiled or on a GPU, ends with the process")
    try:
        found = infer({**batch, "input_ids": ids})
        note = "taken, and finite" if np.isfinite(found).all() else "taken, and not finite"
    except Exception:  # each runtime has an error of its own
        note = "refused"
    after = same(name, infer(batch), _alone(infer, probe.tokens.take(np.array([0]))))
    return Case(name, after.difference, after.tolerance, after.passed and note != "taken, and not finite", note)


def _parity(probe: ProbeGraph, reference: tuple[str, str, Source | Path], alone: Logits) -> Case:
    name, backend, model = reference
    with open_runtime(backend, model, device="cpu") as infer:
        expected = _alone(infer, probe.tokens)
    scale = max(1.0, float(np.sqrt(np.square(expected).mean())))
    allowed = PARITY[probe.precision] * scale
    name = f"parity with {name} (root mean square)"
    if not np.isfinite(alone).all():
        return Case(name, None, allowed, False, "not finite")
    difference = float(np.sqrt(np.square(alone - expected).mean()))
    return Case(name, difference, allowed, difference <= allowed)
