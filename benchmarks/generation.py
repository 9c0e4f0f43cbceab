"""Time of the prompt and of one decoding step for a language model's graphs, as ratios to FP32; time by batch size.

    python benchmarks/generation.py BUNDLE... [--prompt-tokens 64] [--new-tokens 24] [--rounds 7] [--batch-sizes 1,8]

The bundles are of one checkpoint in several precisions (`toolchain build --task lm`). FP32 is the model.onnx of the
first bundle. Each round runs every graph once, so that a slow phase of the machine affects all graphs. A ratio is the
median time of FP32 divided by that of the graph: above 1, the graph is faster. The output also has the smallest and the
largest ratio within a round. With --batch-sizes, each graph instead runs batches of equal prompts, and a ratio is the
time per token at the first batch size divided by the time per token at this one.
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
    """Measure the bundles, and print one JSON object: graph -> its times and ratios."""
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
    """Return, for each batch size, the time per token in ms and its ratio to the first batch size.

    Both are given for a decoding step alone (`step`), and for the whole generation with the prompt (`whole`). `new` is
    the number of tokens that are generated after each prompt.
    """
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
    """Return the prompt time and the step time of each graph in ms, and FP32's times divided by them."""
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
