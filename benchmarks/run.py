"""Ratios against what a user would pick instead, interleaved in one run: `make bench`.

Each contender runs the same rows, text in to logits out, in rounds of random order; a ratio is the
median over rounds of the ratio within a round, so that a machine that slows down slows all alike.
With ../shared the rows are GLUE's sst2 and the model a fine-tuned DistilBERT; without, the demo's.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metering import metering_cost

from toolchain import graph
from toolchain.build import build
from toolchain.calibrate import MAX_SLOTS, calibrate
from toolchain.data import load_rows
from toolchain.energy.load import pieces
from toolchain.environment import describe
from toolchain.evaluate import BUDGETS
from toolchain.files import write_json
from toolchain.forward import run
from toolchain.job import Job, prepare
from toolchain.recipe import Recipe
from toolchain.runtimes import open_runtime
from toolchain.tokens import budget_batches, equal_length_batches

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
PIPELINE_BATCH = 32
BUDGET = BUDGETS[1]
MEMORY_ROWS = (256, 2048)
METERED_ROWS, METERED_PAIRS = 512, 130


def main() -> None:
    """Run every comparison, print the table, keep it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=None, help="first N validation rows")
    parser.add_argument("-o", "--output", type=Path, help="keep the figures as JSON")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    recipe = Recipe.make(subject())
    if args.peak:
        print(json.dumps(calibration_peak_mb(recipe, args.peak)))
        return
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(recipe.replace(output=f"{folder}/bundle"))
        build(job.recipe)
        figures = {
            **speed(job, Path(folder) / "bundle", rounds=args.rounds, limit=args.rows),
            **calibration_cost(job, Path(folder) / "bundle/model.onnx", rounds=args.rounds),
            **memory(),
            **metering(job, Path(folder) / "bundle/model.int8.cpu.onnx"),
        }
    for name, value in figures.items():
        print(f"{name:58} {value:9.3f}")
    if args.output:
        write_json(args.output, {"model": Path(job.source.name).name, "figures": figures, "environment": describe()})


def subject() -> dict[str, Any]:
    """Return the recipe to measure: the real model and data where they are, else the demo's."""
    model, data = SHARED / "models/distilbert-l6-h384-sst2", SHARED / "glue/sst2"
    if model.exists() and data.exists():
        return {"model": str(model), "task": "sst2", "data": str(data), "precision": "int8"}
    return {"model": "demo", "task": "demo", "precision": "int8"}


def interleaved(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each contender once a round, in random order, after one untimed round."""
    times_s: dict[str, list[float]] = {name: [] for name in contenders}
    generator = random.Random(0)
    for number in range(rounds + 1):
        for name in generator.sample(list(contenders), len(contenders)):
            start = time.perf_counter()
            contenders[name]()
            if number:
                times_s[name].append(time.perf_counter() - start)
    return times_s


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return the median over rounds of how many times longer `slow` takes."""
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def speed(job: Job, bundle: Path, *, rounds: int, limit: int | None) -> dict[str, float]:
    """Compare text-to-logits throughput with a plain transformers pipeline."""
    from transformers import pipeline

    rows = load_rows(job.task, "validation", data=job.recipe.data)
    texts = rows.texts[:limit]
    plain = pipeline("text-classification", model=str(job.source.folder), device="cpu", dtype="float32")
    with (
        open_runtime("torch", job.source, device="cpu") as torch_fp32,
        open_runtime("ort", bundle / "model.onnx", device="cpu") as ort_fp32,
        open_runtime("ort", bundle / "model.int8.cpu.onnx", device="cpu") as ort_int8,
    ):
        evaluated = {"torch FP32": torch_fp32, "ort FP32": ort_fp32, "ort INT8": ort_int8}
        contenders: dict[str, Callable[[], object]] = {
            name: lambda infer=infer: run(infer, job.encode(texts), max_slots=BUDGET)
            for name, infer in evaluated.items()
        }
        contenders["pipeline"] = lambda: plain([text[0] for text in texts], batch_size=PIPELINE_BATCH)
        times = interleaved(contenders, rounds)
    found = {f"{name} / pipeline FP32 at batch 32, rows per second": ratio(times["pipeline"], times[name])
             for name in evaluated}  # fmt: skip
    return found | {f"{name}, rows/s": len(texts) / statistics.median(times[name]) for name in times}


def calibration_cost(job: Job, model: Path, *, rounds: int) -> dict[str, float]:
    """Compare calibration of 512 rows with a plain forward pass over them, in its own batches and the evaluator's."""
    rows = load_rows(job.task, "train", data=job.recipe.data)
    tokens = job.encode(rows.sample(512, seed=0).texts)
    own = list(equal_length_batches(tokens.lengths, max_slots=MAX_SLOTS))
    budgeted = list(budget_batches(tokens.lengths, max_slots=BUDGET))
    with open_runtime("ort", model, device="cpu") as infer:
        contenders: dict[str, Callable[[], object]] = {
            "calibrate": lambda: calibrate(graph.load(model), tokens, method="entropy"),
            "same": lambda: [infer(tokens.batch(batch)) for batch in own],
            "budget": lambda: [infer(tokens.batch(batch)) for batch in budgeted],
        }
        times = interleaved(contenders, rounds)
    return {
        "calibrate 512 rows (entropy) / forward pass, same batches, time": ratio(times["calibrate"], times["same"]),
        "calibrate 512 rows (entropy) / forward pass, time": ratio(times["calibrate"], times["budget"]),
    }


def calibration_peak_mb(recipe: Recipe, samples: int) -> float:
    """Return the peak memory of calibrating `samples` rows, in this process, from just before it."""
    from toolchain.meters.memory import MemoryMeter

    job = prepare(recipe)
    with tempfile.TemporaryDirectory() as folder:
        build(recipe.replace(precision="fp32", output=f"{folder}/bundle"))
        rows = load_rows(job.task, "train", data=recipe.data)
        tokens = job.encode(rows.sample(samples, seed=0).texts)
        meter = MemoryMeter()
        meter.start()
        calibrate(graph.load(Path(folder) / "bundle/model.onnx"), tokens, method="entropy")
        return float(meter.stop()["host"] or 0)


def metering(job: Job, model: Path) -> dict[str, float]:
    """Compare throughput under an energy meter with that without."""
    rows = load_rows(job.task, "validation", data=job.recipe.data)
    tokens = job.encode(rows.texts[:METERED_ROWS])
    with open_runtime("ort", model, device="cpu") as infer:
        work = pieces(tokens, budget_batches(tokens.lengths, max_slots=BUDGET))
        return metering_cost(infer, work[len(work) // 2 :][:1], pairs=METERED_PAIRS)  # one batch: calls alike


def memory() -> dict[str, float]:
    """Compare the peak memory of calibrating many rows and few, each in a fresh process."""
    few, many = (
        json.loads(subprocess.check_output([sys.executable, __file__, "--peak", str(samples)]))
        for samples in MEMORY_ROWS
    )
    return {f"calibrate {MEMORY_ROWS[1]} / {MEMORY_ROWS[0]} rows, peak memory": many / few}


if __name__ == "__main__":
    main()
