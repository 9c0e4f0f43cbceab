"""Accuracy and throughput of a model that `toolchain shrink` made from sst2's, in FP32 and INT8.

Rows/s are those of the evaluator with ONNX Runtime, from text to logits; the original and the shrunk model run in
interleaved rounds. With several seeds, the accuracy in FP32 is the mean over the seeds; the rows/s and the accuracy in
INT8 are measured with seed 0 only. `--checkpoint DIR` measures a model that `toolchain shrink` made before.
"""

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from interleave import interleaved, ratio
from table import show, verdicts
from targets import Target, judge
from workload import SHARED

from toolchain.bundle.build import build
from toolchain.checkpoint.shrunk import read_shrink
from toolchain.distill.options import Options
from toolchain.distill.shrink import shrink
from toolchain.evaluation.target import find_target
from toolchain.recipe import Recipe
from toolchain.records.shrink import ShrinkRecord
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run_texts
from toolchain.workflow import evaluate

BIG = {
    "model": str(SHARED / "models/distilbert-l6-h384-sst2"),
    "task": "sst2",
    "data": str(SHARED / "glue/sst2"),
    "device": "cpu",
}
ACCURACY = "accuracy of the shrunk model"
FP32, INT8 = "rows/s in FP32 / the original's", "rows/s in INT8 / the original's"
TARGETS = {
    "ffn": (Target(ACCURACY, 0.875), Target(FP32, 1.35), Target(INT8, 1.25)),
    "layers": (Target(ACCURACY, 0.865), Target(FP32, 1.8)),
}


def made(options: Options, seed: int, folder: Path) -> ShrinkRecord:
    """Shrink sst2's model with this seed, write the checkpoint into `folder`, and return the record of `shrink`."""
    return shrink({**BIG, "seed": seed}, options, folder, tell=print)["shrink"]


def bundles(checkpoint: Path, folder: Path) -> dict[str, Path]:
    """Build a bundle in FP32 and one in INT8 from a checkpoint, below `folder`; return precision -> bundle."""
    for precision in ("fp32", "int8"):
        output = folder / precision
        build(
            Recipe.make({**BIG, "model": str(checkpoint), "precision": precision, "output": str(output)}), engine=False
        )
    return {precision: folder / precision for precision in ("fp32", "int8")}


def faster(original: dict[str, Path], shrunk: dict[str, Path], rounds: int) -> dict[str, float]:
    """Return the rows/s of the shrunk model divided by those of the original, in FP32 and in INT8.

    `original` and `shrunk` map a precision to its bundle. A ratio is the median over the rounds. The smallest and the
    largest ratio of a round are printed.
    """
    places = {
        f"{kind} {name}": place
        for kind, all_ in (("original", original), ("shrunk", shrunk))
        for name, place in all_.items()
    }
    found = {}
    with ExitStack() as opened:
        calls = {}
        for name, place in places.items():
            target = find_target({"device": "cpu"}, place)
            infer = opened.enter_context(open_runtime("ort", target.model, **target.choices))
            texts, encode = target.resolved.rows("validation").texts, target.resolved.encode
            calls[name] = lambda infer=infer, encode=encode, texts=texts: run_texts(infer, encode, texts)
        timed = interleaved(calls, rounds)
    for key, name in ((FP32, "fp32"), (INT8, "int8")):
        within = ratio(timed[f"original {name}"], timed[f"shrunk {name}"])
        print(f"{key}: {within.median:.3f} ({within.low:.3f} to {within.high:.3f})")
        found[key] = within.median
    return found


def main() -> None:
    """Shrink the model with each seed, or take --checkpoint; print the figures and whether they meet their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        choices=TARGETS,
        default="ffn",
        help="what to shrink: ffn halves the feed-forward width, layers keeps 3 of 6 layers",
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="training time for each seed, in minutes (default 15)"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="training steps for each seed; use instead of --minutes")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (default 3)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="interleaved rounds (default 7)")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="measure this checkpoint, made by `toolchain shrink`"
    )
    args = parser.parse_args()
    cuts = {"ffn": {"ffn": 0.5}, "layers": {"layers": 3}}[args.only]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = args.checkpoint or folder / "0"
        if args.checkpoint:
            record = read_shrink(checkpoint)
            assert record, f"{checkpoint}: it has no shrink.json. Give a checkpoint made by toolchain shrink."
            records = [record]
        else:
            options = Options(**cuts, steps=args.steps, minutes=args.minutes)
            records = [made(options, seed, folder / str(seed)) for seed in range(args.seeds)]
        for one in records:
            print({key: one[key] for key in ("seed", "steps", "rows_seen", "seconds", "macs_ratio", "scores", "loss")})
        found = {ACCURACY: statistics.mean(one["scores"]["shrunk"] for one in records if one["scores"])}
        original, shrunk = bundles(Path(BIG["model"]), folder / "original"), bundles(checkpoint, folder / "shrunk")
        for place in (original["int8"], shrunk["int8"]):
            print(place.parent.name, "INT8:", evaluate({"device": "cpu"}, bundle=place)["metrics"])
        found |= faster(original, shrunk, args.rounds)
    show(verdicts(judge(found, frozenset(), TARGETS[args.only])))


if __name__ == "__main__":
    main()
