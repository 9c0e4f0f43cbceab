"""Prompt and step times of a language model's graphs in turn, as ratios to FP32.

    python benchmarks/generation.py BUNDLE... [--prompt-tokens 64] [--new-tokens 24] [--rounds 7]

BUNDLE are bundles of one checkpoint in several precisions (`toolchain build --task lm`); FP32 is the model.onnx of the
first. Each round runs every graph once, so that a slow moment meets all of them. A ratio is that of medians; beside it
stand the least and the largest ratio of a round.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from toolchain.generate.opened import open_file, open_lm
from toolchain.generate.prompts import PromptBatch
from toolchain.generate.session import Session, generate


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    for name, value in (("--prompt-tokens", 64), ("--new-tokens", 24), ("--rounds", 7)):
        parser.add_argument(name, type=int, default=value)
    args = parser.parse_args()
    first, *_ = opened = [open_lm(place) for place in args.bundles]
    graphs = {"fp32": open_file(first, "model.onnx", device="cpu").session}
    graphs |= {one.manifest["precision"]: open_file(one, None, device="cpu").session for one in opened}
    ids = np.random.default_rng(0).integers(100, first.manifest["lm"]["vocabulary"], (1, args.prompt_tokens))
    batch = PromptBatch(ids, np.ones_like(ids))
    print(json.dumps(compare(graphs, batch, new=args.new_tokens, rounds=args.rounds), indent=2))


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
