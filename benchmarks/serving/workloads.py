"""The models and texts for the comparison of servers, and the runtime of such a model without a server."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from load import Load
from workload import SHARED, base_checkpoint, repeated

from toolchain.base.tensors import Infer
from toolchain.bundle.build import build
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import load_rows
from toolchain.data.tasks import load_task
from toolchain.evaluation.target import find_target
from toolchain.recipe import Recipe
from toolchain.runtimes import open_runtime

TEXTS = 256
# Tokens of a row of `long`.
LONG = 256


def embedded(folder: Path) -> tuple[Path, list[str]]:
    """Build the demo's INT8 bundle in `folder`, and return it and the demo's texts.

    The model is so small that the server takes most of the time.
    """
    return _built("demo", folder), _texts("demo", None)


def base(folder: Path, **changes: int) -> tuple[Path, list[str]]:
    """Build an INT8 bundle with DistilBERT-base's shapes and random weights in `folder`, and return it and the texts.

    The texts are sst2's if ../shared has them, otherwise the demo's. `changes` are changed options of the recipe.
    """
    real = SHARED / "glue/sst2"
    texts = _texts("sst2", str(real)) if real.exists() else _texts("demo", None)
    return _built(str(base_checkpoint(folder)), folder, **changes), texts


def long(folder: Path) -> tuple[Path, list[str]]:
    """Build the bundle of `base` for rows of LONG tokens; return it and its texts, each repeated to that length."""
    bundle, texts = base(folder, max_length=LONG)
    return bundle, [repeated(text, LONG) for text in texts]


WORKLOADS: dict[str, Callable[[Path], tuple[Path, list[str]]]] = {"base": base, "embedded": embedded, "long": long}


def _built(model: str, folder: Path, **changes: int) -> Path:
    values = {
        "model": model,
        "task": "demo",
        "precision": "int8",
        "calib_samples": 64,
        "output": str(folder / "bundle"),
    }
    recipe = Recipe.make(values | changes)
    build(recipe, engine=False)
    return folder / "bundle"


def _texts(task: str, data: str | None) -> list[str]:
    return [text[0] for text in load_rows(load_task(Recipe(task=task)), "validation", data=data).texts[:TEXTS]]


@dataclass(frozen=True)
class Engine:
    """The runtime of a bundle without a server, opened as `toolchain eval` opens it, and tokenised rows to run."""

    infer: Infer
    tokens: Tokens

    @classmethod
    @contextlib.contextmanager
    def of(cls, bundle: Path, texts: list[str]) -> Iterator["Engine"]:
        """Open a bundle's graph in ONNX Runtime on the CPU, tokenise the texts, and yield both as an `Engine`."""
        target = find_target({"backend": "ort", "device": "cpu"}, bundle)
        with open_runtime("ort", target.model, device="cpu") as infer:
            yield cls(infer, target.resolved.encode([(text,) for text in texts]))


def bare_rows_per_s(engine: Engine, *, batch: int, seconds: float) -> Load:
    """Run batches of `batch` rows, in the order of the rows, for `seconds` seconds; return the figures.

    `per_s` is in rows per second, and the latencies are those of a batch.
    """
    rows, took_ms = 0, []
    start = time.perf_counter()
    for first in itertools.cycle(range(0, len(engine.tokens), batch)):
        before = time.perf_counter()
        chosen = np.arange(first, min(first + batch, len(engine.tokens)))
        engine.infer(engine.tokens.batch(chosen))
        rows += len(chosen)
        took_ms.append((time.perf_counter() - before) * 1e3)
        if time.perf_counter() - start >= seconds:
            break
    p50, p99 = np.percentile(took_ms, [50, 99])
    return Load(rows / (time.perf_counter() - start), float(p50), float(p99), 0)
