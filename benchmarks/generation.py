"""Prompt and step times of a language model's graphs in turn, as ratios to FP32; seconds a token by batch size.

    python benchmarks/generation.py BUNDLE... [--prompt-tokens 64] [--new-tokens 24] [--rounds 7] [--batch-sizes 1,8]

BUNDLE are bundles of one checkpoint in several precisions (`toolchain build --task lm`); FP32 is the model.onnx of the
first. Each round runs every graph once, so that a slow moment meets all of them. A ratio is that of medians; beside it
stand the least and the largest ratio of a round. With --batch-sizes, each graph runs equal prompts in batches of these
sizes in turn, and the ratios are the times a token of the first size over those of the others.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolchain.generate.decode_ort import Session, generate
from toolchain.generate.opened import open_file, open_lm
from toolchain.generate.prompts import PromptBatch

Ids = NDArray[np.int64]


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    for name, value in (("--prompt-tokens", 64), ("--new-tokens", 24), ("--rounds", 7)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--batch-sizes")
    args = parser.parse_args()
    first, *_ = opened = [open_lm(place) for place in args.bundles]
    graphs = {"fp32": open_file(first, "model.onnx", device="cpu").session}
    graphs |= {one.manifest["precision"]: open_file(one, None, device="cpu").session for one in opened}
    ids = np.random.default_rng(0).integers(100, first.manifest["lm"]["vocabulary"], (1, args.prompt_tokens))
    batch = PromptBatch(ids, np.ones_like(ids))
    if args.batch_sizes:
        sizes = [int(size) for size in args.batch_sizes.split(",")]
        found = {name: by_batch(one, ids, sizes, args.new_tokens, args.rounds) for name, one in graphs.items()}
    else:
        found = compare(graphs, batch, new=args.new_tokens, rounds=args.rounds)
    print(json.dumps(found, indent=2))


def by_batch(session: Session, ids: Ids, sizes: list[int], new: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the times of a token of each batch size, ms, in steps and in all, and their ratios to the first size."""
    batches = {
        size: PromptBatch(np.repeat(ids, size, axis=0), np.ones((size, ids.shape[1]), np.int64)) for size in sizes
    }
    steps: dict[int, list[float]] = {size: [] for size in sizes}
    whole: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(rounds + 1):
        for size, batch in batches.items():
            made = generate(session, set(), batch, cache="dynamic", new=new, pad=0)
            if turn:  # the first is a warm-up
                steps[size].append(float(np.median(made.steps_s)) / size)
                whole[size].append(made.seconds / (size * new))
    return {
        f"batch {size}": {
            "step_ms_per_token": 1e3 * float(np.median(steps[size])),
            "ms_per_token": 1e3 * float(np.median(whole[size])),
            **_ratios("step", steps[sizes[0]], steps[size]),
            **_ratios("whole", whole[sizes[0]], whole[size]),
        }
        for size in sizes
    }


def compare(graphs: dict[str, Session], batch: PromptBatch, *, new: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the times of each graph, ms, and how many times faster than FP32 it is."""
    prompts: dict[str, list[float]] = {name: [] for name in graphs}
    steps: dict[str, list[float]] = {name: [] for name in graphs}
    for turn in range(rounds + 1):
        for name, session in graphs.items():
            made = generate(session, set(), batch, cache="dynamic", new=new, pad=0)
            if turn:  # the first is a warm-up
                prompts[name].append(made.first_s)
                steps[name].append(float(np.median(made.steps_s)))
    return {
        name: {
            "prompt_ms": 1e3 * float(np.median(prompts[name])),
            "step_ms": 1e3 * float(np.median(steps[name])),
            **_ratios("prompt", prompts["fp32"], prompts[name]),
            **_ratios("step", steps["fp32"], steps[name]),
        }
        for name in graphs
    }


def _ratios(kind: str, fp32: list[float], other: list[float]) -> dict[str, float]:
    each = np.array(fp32) / np.array(other)
    middle = float(np.median(fp32) / np.median(other))
    return {f"{kind}_ratio": middle, f"{kind}_least": float(each.min()), f"{kind}_largest": float(each.max())}


if __name__ == "__main__":
    main()
