"""Verify that an artefact gives a row the same logits in any batch, padding and order, and logits close to FP32's.

Every case is compared with the rows run one by one, without padding; a difference is the largest over all logits. On a
CPU, a graph with float16 tensors runs with them rounded to float16 (graph/halves.py), as on a GPU.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from toolchain.base.progress import track
from toolchain.base.tensors import Batch, Infer, Logits, joined
from toolchain.checkpoint.model import Source
from toolchain.checkpoint.tokenize import Tokens, batches_of
from toolchain.diagnose.probe import ProbeGraph
from toolchain.errors import GateError
from toolchain.graph import file_has_halves
from toolchain.records.verify import CaseRecord, VerifyRecord
from toolchain.runtimes import open_runtime

BATCHES = (2, 7, 32)
LENGTHS = (16, 64, 128)

# Precision -> largest change of a logit that batching, padding or the order of rows may cause, as a fraction of the
# largest logit. It is not zero, because sums of floats depend on their order. In 8 bits, a value halfway between two
# levels can then be rounded to the other level.
INVARIANCE = {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.05, "int8": 0.05, "fp8": 0.05}

# Precision -> largest root mean square (RMS) difference of the logits from FP32's over all rows, as a fraction of the
# RMS of FP32's logits.
PARITY = {"fp32": 1e-4, "fp16": 0.05, "bf16": 0.1, "int8": 0.15, "fp8": 0.15}

# Precision -> largest 1 - cosine similarity of an embedding to FP32's, as the mean over the rows. The gate judges how
# much quality 8 bits lose. This limit finds graphs that compute something else.
COSINE = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 0.01, "int8": 0.05, "fp8": 0.05}

Compare = Callable[..., CaseRecord]
"""`compare(name, found, expected)`: return the case for logits; `expected` defaults to those of each row alone."""


def verify(probe: ProbeGraph) -> VerifyRecord:
    """Run every case; return the record of all cases, and whether the artefact passed them.

    Raises:
        ToolchainError: the artefact cannot be run.
    """
    halves = probe.backend == "ort" and probe.device == "cpu" and file_has_halves(probe.file)
    with open_runtime(probe.backend, probe.model, **probe.choices, **({"halves": True} if halves else {})) as infer:
        cases = list(track(_cases(probe, infer), total=None, text="verifying"))
    return {
        "artefact": str(probe.file),
        "precision": probe.precision,
        "halves": halves,
        "rows": probe.rows,
        "cases": cases,
        "passed": all(case["passed"] for case in cases),
    }


def judge(record: VerifyRecord) -> None:
    """Raise if an artefact failed a case.

    Raises:
        GateError: a case failed; the message names the first.
    """
    failed = next((case for case in record["cases"] if not case["passed"]), None)
    if failed:
        why = failed["note"] or (
            f"logits differ by {failed['difference']:.2g}, and the tolerance is {failed['tolerance']:.2g}"
        )
        raise GateError(
            f"{record['artefact']}: {failed['name']}: {why}. Do not deploy it. To see what differs: toolchain explain."
        )


def _case(name: str, difference: float | None, tolerance: float | None, passed: bool, note: str = "") -> CaseRecord:
    return {"name": name, "difference": difference, "tolerance": tolerance, "passed": passed, "note": note}


def _cases(probe: ProbeGraph, infer: Infer) -> Iterator[CaseRecord]:
    tokens = probe.tokens
    alone = _one_by_one(infer, tokens)
    least = probe.head.least_scale if probe.head else 1.0
    largest = max(least, float(np.abs(alone[np.isfinite(alone)]).max(initial=0)))
    tolerance = INVARIANCE[probe.precision] * largest

    def compare(name: str, found: Logits, expected: Logits = alone) -> CaseRecord:
        if not np.isfinite(found).all():
            return _case(name, None, tolerance, False, "not finite")
        both = joined([found, expected])
        difference = float(np.abs(both[: len(found)] - both[len(found) :]).max())
        return _case(name, difference, tolerance, difference <= tolerance)

    if tokens.equal_length:
        yield from _equal_lengths(tokens, infer, compare, alone)
    else:
        yield from _paddings(probe, infer, compare, alone)
    yield from _unusual_rows(probe, infer, compare)
    yield _beyond_the_vocabulary(probe, infer, compare)
    if probe.fp32:
        yield _parity(probe, probe.fp32, alone)
    elif probe.precision != "fp32":
        yield _case("parity with FP32", None, None, True, "not compared: there is no FP32 graph to compare with")


def _equal_lengths(tokens: Tokens, infer: Infer, compare: Compare, alone: Logits) -> Iterator[CaseRecord]:
    """Yield the cases of a bundle whose logits depend on padding: batches of rows of the same length."""
    yield _case("padding", None, None, True, "not run: logits depend on padding, so batches have rows of one length")
    for size in BATCHES:
        rows = [np.resize(group, size) for group in batches_of(tokens, size)]
        yield compare(
            f"in batches of {size} of one length",
            joined([infer(tokens.batch(part)) for part in rows]),
            alone[np.concatenate(rows)],
        )


def _paddings(probe: ProbeGraph, infer: Infer, compare: Compare, alone: Logits) -> Iterator[CaseRecord]:
    """Yield the cases with padding: batches of rows of different lengths, single padded rows, and another order."""
    tokens = probe.tokens
    every_row = np.arange(len(tokens))
    for size in BATCHES:
        rows = np.resize(every_row, max(size, len(tokens)) // size * size)
        parts = [infer(tokens.batch(part)) for part in rows.reshape(-1, size)]
        yield compare(f"in batches of {size}", joined(parts), alone[rows])
    for length in (*[length for length in LENGTHS if length < probe.max_length], probe.max_length):
        rows = every_row[tokens.lengths <= length]
        if len(rows):
            padded = [infer(tokens.batch(np.array([row]), length=length)) for row in rows]
            yield compare(f"padded to {length}", joined(padded), alone[rows])
    shuffled = np.random.default_rng(0).permutation(every_row)
    yield compare("in another order", infer(tokens.batch(shuffled)), alone[shuffled])
    yield _beside_a_row_of_padding(probe, infer, compare)


def _one_by_one(infer: Infer, tokens: Tokens) -> Logits:
    return joined([infer(tokens.batch(np.array([row]))) for row in range(len(tokens))])


def _beside_a_row_of_padding(probe: ProbeGraph, infer: Infer, compare: Compare) -> CaseRecord:
    """Return the case of a batch whose first row is only padding.

    The logits of this row must be finite if those of FP32 are, and the other rows must not change.
    """
    tokens = probe.tokens
    batch = tokens.batch(np.arange(len(tokens)))
    empty = {name: np.full_like(array[:1], tokens.pad_values[name]) for name, array in batch.items()}
    found = infer({name: np.concatenate([empty[name], array]) for name, array in batch.items()})
    if not np.isfinite(found[0]).all() and _finite_in_fp32(probe, empty):
        return _case("beside a row of padding", None, None, False, "the logits of the row of padding are not finite")
    return compare("beside a row of padding", found[1:])


def _finite_in_fp32(probe: ProbeGraph, batch: Batch) -> bool:
    """Return whether the FP32 reference has finite logits for a batch; True if there is no reference."""
    if probe.fp32 is None:
        return True
    _, backend, model = probe.fp32
    with open_runtime(backend, model, device="cpu") as infer:
        return bool(np.isfinite(infer(batch)).all())


def _unusual_rows(probe: ProbeGraph, infer: Infer, compare: Compare) -> Iterator[CaseRecord]:
    """Yield the cases of the longest row, an empty text and unknown words, each compared in a batch and alone."""
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
        other = row if probe.tokens.equal_length else ids[0]
        columns = {
            "input_ids": [row, other],
            "attention_mask": [[1] * len(row), [1] * len(other)],
            "token_type_ids": [[0] * len(row), [0] * len(other)],
        }
        both = Tokens({key: columns[key] for key in probe.tokens.columns}, probe.tokens.pad_values)
        yield compare(f"a row {name}", infer(both.batch(np.arange(2))), _one_by_one(infer, both))


def _beyond_the_vocabulary(probe: ProbeGraph, infer: Infer, compare: Compare) -> CaseRecord:
    """Return the case of a token id outside the vocabulary.

    The runtime must refuse it or give finite logits, and the next call must not be affected.
    """
    batch: Batch = probe.tokens.batch(np.array([0]))
    ids = batch["input_ids"].copy()
    ids[0, -1] = probe.vocabulary
    name = "an id beyond the vocabulary"
    if probe.backend == "torch" and (probe.device != "cpu" or probe.choices.get("compiled")):
        return _case(name, None, None, True, "not run: PyTorch, compiled or on a GPU, would crash the process")
    try:
        found = infer({**batch, "input_ids": ids})
        note = "taken, and finite" if np.isfinite(found).all() else "taken, and not finite"
    except Exception:  # every runtime raises an exception of its own
        note = "refused"
    after = compare(name, infer(batch), _one_by_one(infer, probe.tokens.take(np.array([0]))))
    return {**after, "passed": after["passed"] and note != "taken, and not finite", "note": note}


def _parity(probe: ProbeGraph, reference: tuple[str, str, Source | Path], alone: Logits) -> CaseRecord:
    name, backend, model = reference
    with open_runtime(backend, model, device="cpu") as infer:
        expected = _one_by_one(infer, probe.tokens)
    near = probe.head.nearness(alone, expected) if probe.head else None
    if near is not None and np.isfinite(near).all():
        tolerance, distance = COSINE[probe.precision], float(1 - near.mean())
        note = f"the smallest cosine is {near.min():.4f}"
        return _case(f"parity with {name} (1 - cosine)", distance, tolerance, distance <= tolerance, note)
    scale = max(1.0, float(np.sqrt(np.square(expected).mean())))
    tolerance = PARITY[probe.precision] * scale
    name = f"parity with {name} (root mean square)"
    if not np.isfinite(alone).all():
        return _case(name, None, tolerance, False, "not finite")
    difference = float(np.sqrt(np.square(alone - expected).mean()))
    return _case(name, difference, tolerance, difference <= tolerance)
