"""The first stage of a cascade bundle, read from the files that `toolchain cascade` added to the bundle.

A cascade has two models. The cheap first stage answers the rows that it is sure of, and passes the others on to the
second stage, which is the bundle's own model.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.base.tensors import Batch, Infer
from toolchain.bundle import MANIFEST, Bundle
from toolchain.bundle.learnt import read_listed
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Rows
from toolchain.errors import InputError
from toolchain.recipe.tables import BACKENDS
from toolchain.records.cascade import CascadeRecord, CascadeRun
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run
from toolchain.runtimes.cascade import FirstStage, passed_on
from toolchain.runtimes.lexical import Lexical, read_lexical

if TYPE_CHECKING:
    from toolchain.evaluation.target import Target

# Folder of the first stage in a bundle, and the names of a lexical and of a small first stage in it.
FOLDER = "cascade"
LEXICAL, SMALL = f"{FOLDER}/lexical.safetensors", f"{FOLDER}/small"

AGAIN = "Run `toolchain cascade` again."

# File in a bundle with the digests of the texts on which the threshold was chosen.
ROWS = f"{FOLDER}/rows.json"


def record_of(bundle: Bundle | None) -> CascadeRecord | None:
    """Return the entry `cascade` of a bundle's manifest; None if the bundle is not a cascade.

    Raises:
        InputError: the entry lacks a key, or names a file that `toolchain cascade` does not write.
    """
    record = bundle.manifest.get("cascade") if bundle else None
    if record is None or bundle is None:
        return None
    file = {"lexical": LEXICAL, "bundle": SMALL}.get(record.get("first", ""))
    needed = {"threshold", "passed_on", "calibrated_on"} | ({"sha256"} if file == SMALL else set())
    whole = needed <= record.keys() and "n" in record["calibrated_on"] and math.isfinite(record["threshold"])
    if file is None or record.get("file") != file or not whole:
        raise InputError(f"{bundle.path / MANIFEST}: its entry `cascade` is broken. {AGAIN}")
    return record


def find_stage(target: "Target") -> FirstStage | None:
    """Return the first stage of a target that runs a graph or a plan of a cascade bundle; None for other targets.

    Raises:
        InputError: the files of the first stage are damaged.
    """
    return _stage(target) if BACKENDS[target.backend].runs in ("graph", "plan") else None


def _stage(target: "Target") -> FirstStage | None:
    """Return the first stage of a target's bundle on any backend; None if the bundle is not a cascade."""
    record = record_of(target.bundle)
    if record is None or target.bundle is None:
        return None
    if record["first"] == "lexical":
        where, resolved = target.bundle.path / record["file"], target.resolved
        vocabulary = resolved.source.facts.values["input_ids"]
        data = target.bundle.read(record["file"])
        return lexical_stage(
            read_lexical(data, vocabulary, len(resolved.head.labels), where=str(where)), record["threshold"]
        )
    small = find_small(target)
    assert small is not None
    return bundle_stage(small, record["threshold"])


def find_small(target: "Target") -> "Target | None":
    """Return the target of the smaller bundle that is a cascade's first stage; None if there is no such bundle.

    That bundle runs on the same device as `target`, or on the CPU if `target` is a server.
    """
    record = record_of(target.bundle)
    if record is None or target.bundle is None or record["first"] != "bundle":
        return None
    from toolchain.evaluation.target import find_target

    device = "cpu" if target.device == "remote" else target.device
    place = target.bundle.path / record["file"]
    return find_target({"device": device, "trust": record["sha256"]}, place, prefer_plan=device != "cpu")


def run_choices(target: "Target") -> dict[str, Any]:  # each backend has other arguments
    """Return the keyword arguments of `open_runtime` for a target, including the first stage of a cascade."""
    return {**target.choices, **({"stage": stage} if (stage := find_stage(target)) else {})}


def lexical_stage(model: Lexical, threshold: float) -> FirstStage:
    """Return a lexical model as a first stage. numpy computes it, whatever the device of the second stage."""

    def opener(**_: Any) -> AbstractContextManager[Infer]:
        return nullcontext(model)

    return FirstStage(opener, threshold)


def bundle_stage(small: "Target", threshold: float) -> FirstStage:
    """Return a smaller bundle as a first stage. It gets only those inputs of a batch that its own model takes."""
    names = list(small.resolved.source.facts.values)
    return FirstStage(partial(_opened, small, names), threshold)


@contextmanager
def _opened(small: "Target", names: list[str], **sharing: Any) -> Iterator[Infer]:
    with open_runtime(small.backend, small.model, **small.choices, **sharing) as infer:

        def narrowed(batch: Batch) -> Any:
            return infer({name: batch[name] for name in names})

        yield narrowed


def stage_run(target: "Target", rows: Rows) -> CascadeRun | None:
    """Run the first stage of a cascade on `rows`; return the `cascade` block of a result.

    The block has the fraction of rows that the first stage passes on to the second, and the fraction that was expected
    from the rows on which the threshold was chosen. The first stage runs here, even if the target is a server. The
    block is None if the target has no first stage, or is a checkpoint.
    """
    record = record_of(target.bundle)
    if record is None or target.bundle is None or BACKENDS[target.backend].runs == "checkpoint":
        return None
    stage = _stage(target)
    assert stage is not None
    tokens = target.resolved.encode(rows.texts)
    with stage.open({}) as first:
        rest = passed_on(run(first, tokens).logits, stage.threshold)
    chosen = read_listed(target.bundle, ROWS, advice=AGAIN)
    return {
        "passed_on": float(rest.mean()),
        "passed_on_tokens": share_of_tokens(tokens, rest),
        "expected": record["passed_on"],
        "expected_n": record["calibrated_on"]["n"],
        "chosen_on": int(rows.among(chosen).sum()),
    }


def share_of_tokens(tokens: Tokens, rest: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """Return the fraction of all tokens that are in the rows of the mask `rest`, 0 to 1."""
    return float(tokens.lengths[rest].sum() / tokens.lengths.sum())
