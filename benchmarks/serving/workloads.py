"""The two models for the comparison of servers, and their runtime without a server."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from load import Load
from workload import SHARED

from toolchain.base.tensors import Infer
from toolchain.bundle.build import build
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.demo import FOLDER
from toolchain.data.rows import load_rows
from toolchain.data.tasks import load_task
from toolchain.evaluation.target import find_target
from toolchain.recipe import Recipe
from toolchain.runtimes import open_runtime

TEXTS = 256


def embedded(folder: Path) -> tuple[Path, list[str]]:
    """Return the demo's INT8 bundle and its texts; the model is so small that the server takes most of the time."""
    return _built("demo", folder), _texts("demo", None)


def base(folder: Path) -> tuple[Path, list[str]]:
    """Return a bundle with DistilBERT-base's shapes and random weights, and sst2's texts if ../shared has them."""
    import torch
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertForSequenceClassification

    real = SHARED / "glue/sst2"
    source = SHARED / "models/distilbert-l6-h384-sst2" if real.exists() else FOLDER
    tokenizer = AutoTokenizer.from_pretrained(str(source))
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=len(tokenizer), num_labels=2)
    DistilBertForSequenceClassification(config).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    texts = _texts("sst2", str(real)) if real.exists() else _texts("demo", None)
    return _built(str(folder / "base"), folder), texts


WORKLOADS: dict[str, Callable[[Path], tuple[Path, list[str]]]] = {"base": base, "embedded": embedded}


def _built(model: str, folder: Path) -> Path:
    recipe = Recipe.make(
        {"model": model, "task": "demo", "precision": "int8", "calib_samples": 64, "output": str(folder / "bundle")}
    )
    build(recipe, engine=False)
    return folder / "bundle"


def _texts(task: str, data: str | None) -> list[str]:
    return [text[0] for text in load_rows(load_task(Recipe(task=task)), "validation", data=data).texts[:TEXTS]]


@dataclass(frozen=True)
class Engine:
    """The runtime that all servers use, as `eval` opens it, and tokenised rows for it."""

    infer: Infer
    tokens: Tokens

    @classmethod
    @contextlib.contextmanager
    def of(cls, bundle: Path, texts: list[str]) -> Iterator["Engine"]:
        """Open a bundle's graph for ONNX Runtime on the CPU."""
        target = find_target({"backend": "ort", "device": "cpu"}, bundle)
        with open_runtime("ort", target.model, device="cpu") as infer:
            yield cls(infer, target.resolved.encode([(text,) for text in texts]))


def bare_rows_per_s(engine: Engine, *, batch: int, seconds: float) -> Load:
    """Return the figures of the runtime on batches of `batch` rows in order, for `seconds` seconds."""
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
