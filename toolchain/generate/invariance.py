"""Verifies that a language model's graph computes the same logits in one pass, in steps, in a batch and with padding.

The logits of every case are compared with those of each row run alone, in one pass without a cache. The graph runs in
ONNX Runtime; `toolchain verify` shows the cases.
"""

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain import graph
from toolchain.generate.build import graph_name
from toolchain.generate.decode_ort import Session, open_graph
from toolchain.generate.opened import OpenedGraph, open_file
from toolchain.generate.parity import centred
from toolchain.generate.weight_only import dequantize_weights, in_float
from toolchain.records.verify import CaseRecord, VerifyRecord

# Lengths of the test rows in tokens. The tokens are random.
LENGTHS = (3, 9, 17, 30)

# Largest change of the centred logits that a cache, a batch or padding may cause, as a fraction of the largest centred
# logit. In these cases the activations of quantized GEMMs stay in float32. The limit also holds for a graph with the
# same weights dequantized to float32.
INVARIANCE = 1e-4

# Largest root mean square (RMS) change of the centred logits that 8-bit activations may cause, as a fraction of the RMS
# of the centred logits with float32 activations. It is not zero, because the kernels for one row and for several rows
# round activations differently.
ROUNDING = 0.1

# Precision -> largest RMS difference of the centred logits from FP32's, as a fraction of the RMS of FP32's. `eval`
# measures how much quality a precision loses. This limit finds graphs that compute something else, whose logits would
# differ by more than their own size. SmolLM2-135M on random tokens has 0.03 in int8 and 0.54 in int4.
PARITY = {"int8": 0.1, "int4": 0.8}

Logits = NDArray[np.float32]
Ids = NDArray[np.int64]


def verify(opened: OpenedGraph) -> VerifyRecord:
    """Run every case on an open graph, and return the record of all cases.

    Raises:
        ToolchainError: the graph cannot be run.
    """
    cases = list(_cases(opened))
    return {
        "artefact": str(opened.bundle.path / opened.file),
        "precision": opened.precision,
        "halves": False,
        "rows": f"{len(LENGTHS)} rows of random tokens",
        "cases": cases,
        "passed": all(case["passed"] for case in cases),
    }


def _cases(opened: OpenedGraph) -> Iterator[CaseRecord]:
    facts, draw = opened.bundle.manifest["lm"], np.random.default_rng(0)
    longest = facts["positions"] or max(LENGTHS)
    rows = [draw.integers(0, facts["vocabulary"], (1, min(length, longest))) for length in LENGTHS]
    session = opened.session if opened.precision == "fp32" else _changed(opened, in_float)
    alone = [centred(_pass(session, row)) for row in rows]
    scale = max(float(np.abs(one).max()) for one in alone)
    tolerance = INVARIANCE * scale

    def compare(name: str, found: list[Logits]) -> CaseRecord:
        if not all(np.isfinite(one).all() for one in found):
            return {"name": name, "difference": None, "tolerance": tolerance, "passed": False, "note": "not finite"}
        largest = max(float(np.abs(centred(one) - known).max()) for one, known in zip(found, alone, strict=True))
        return {
            "name": name,
            "difference": largest,
            "tolerance": tolerance,
            "passed": largest <= tolerance,
            "note": "",
        }

    yield compare("token by token, with the cache", [_steps(session, row, 1) for row in rows])
    yield compare("in passes of up to 4 tokens, with the cache", [_steps(session, row, 4) for row in rows])
    yield compare("in a batch, padded on the left", _padded(session, rows, 0))
    yield compare("with more padding than tokens", _padded(session, rows, min(32, longest - LENGTHS[0])))
    yield compare("in a batch of equal rows", [_pass(session, np.repeat(row, 7, axis=0)) for row in rows])
    if opened.precision != "fp32":
        same = _changed(opened, dequantize_weights)
        yield compare("with the same weights in float32", [_pass(same, row) for row in rows])
        for name, size in (("in one pass", longest), ("token by token", 1)):
            found = [_steps(opened.session, row, size) for row in rows]
            yield _rms(f"with activations in 8 bits, {name} (root mean square)", alone, found, ROUNDING)
        reference = open_file(opened.bundle, graph_name("fp32"), device=opened.session.device).session
        fp32 = [centred(_pass(reference, row)) for row in rows]
        yield _rms("parity with model.onnx (root mean square)", fp32, alone, PARITY[opened.precision])


def _pass(session: Session, ids: Ids) -> Logits:
    return session.run(ids, np.ones_like(ids), session.empty(len(ids)), np.arange(ids.shape[1]))[0]


def _steps(session: Session, ids: Ids, size: int) -> Logits:
    cache, parts = session.empty(1), []
    for start in range(0, ids.shape[1], size):
        new = ids[:, start : start + size]
        mask = np.ones((1, start + new.shape[1]), np.int64)
        logits, cache = session.run(new, mask, cache, np.arange(new.shape[1]))
        parts.append(logits)
    return np.concatenate(parts, axis=1)


def _padded(session: Session, rows: list[Ids], more: int) -> list[Logits]:
    """Return the logits of each row's tokens from one batch, padded to `more` positions beyond the longest row."""
    length = max(row.shape[1] for row in rows) + more
    ids, mask = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.int64)
    for at, row in enumerate(rows):
        ids[at, length - row.shape[1] :], mask[at, length - row.shape[1] :] = row[0], 1
    logits, _ = session.run(ids, mask, session.empty(len(rows)), np.arange(length))
    return [logits[at : at + 1, length - row.shape[1] :] for at, row in enumerate(rows)]


def _changed(opened: OpenedGraph, change: Callable[[ir.Model], int]) -> Session:
    """Return a session of a copy of the opened graph that `change` has changed."""
    model = graph.load(opened.bundle.file(opened.file))
    change(model)
    return open_graph(graph.message(model), device=opened.session.device)


def _rms(name: str, known: list[Logits], found: list[Logits], share: float) -> CaseRecord:
    """Return the case that compares `found` with `known` by the root mean square (RMS) difference of centred logits.

    The case passes if the RMS difference is at most the fraction `share` of the RMS of `known`.
    """
    expected = np.concatenate([one[0] for one in known])
    difference = float(np.sqrt(np.square(np.concatenate([centred(one[0]) for one in found]) - expected).mean()))
    tolerance = share * float(np.sqrt(np.square(expected).mean()))
    passed = bool(np.isfinite(difference)) and difference <= tolerance
    return {"name": name, "difference": difference, "tolerance": tolerance, "passed": passed, "note": ""}
