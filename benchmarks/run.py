"""Compare this project's runtimes with the alternatives that a user has, in one interleaved run: `make bench`.

Each contender runs the same rows, from text to logits, in rounds of random order. A ratio is the median over rounds of
the ratio within a round, so that a machine that slows down affects all contenders alike. With ../shared the rows are
GLUE's sst2 and the model is a fine-tuned DistilBERT; without it, both are the demo's. The run also measures what
calibration and the energy meter cost (`--costs`).
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import table
import targets
from contenders import CONTENDERS
from memory import memory_cost
from metering import metering_cost
from speed import Speed, measure
from workload import Workload, make, recipe

from calibration import calibration_cost
from toolchain.base.files import write_json
from toolchain.errors import GateError
from toolchain.runtimes.environment import cpu_flags, describe, version_of

COSTS: dict[str, Callable[[Workload, int], dict[str, float]]] = {
    "calibration": lambda workload, rounds: calibration_cost(workload, rounds=rounds),
    "memory": lambda workload, rounds: memory_cost(workload),
    "metering": lambda workload, rounds: metering_cost(
        workload
    ),  # last, because it may load a scripted driver into the process
}
PACKAGES = ("openvino", "optimum-onnx")
# The options that change the model or the rows.
SHAPES = ("base", "tokens", "file_order")


def main() -> None:
    """Compare the contenders and measure the costs in --costs; print the figures, and write them with -o."""
    args = arguments()
    about = described()
    with contextlib.nullcontext(args.keep) if args.keep else tempfile.TemporaryDirectory() as folder:
        chosen = recipe(demo=args.demo).replace(calib_method=args.calib_method)
        options = {name: getattr(args, name) for name in SHAPES}
        workload = make(chosen, Path(folder), **options, before=args.before)
        speed = measure(workload, args.only, rounds=args.rounds, limit=args.rows)
        verdicts = targets.judge(targets.figures(speed), cpu_flags())
        print_tables(speed, verdicts, as_markdown=args.markdown)
        costs: dict[str, float] = {}
        for name in (name for name in COSTS if name in args.costs):
            costs |= COSTS[name](workload, args.rounds)
    for name, value in costs.items():
        print(f"{name:68} {value:9.3f}")
    if args.output:
        options |= {"rounds": args.rounds, "calib_method": args.calib_method, "before": commit_of(args.before)}
        write_json(args.output, {**named(workload), **options, **numbers(speed, costs, verdicts), **about})
    if args.strict and any(one.met is False for one in verdicts):
        sys.exit(GateError.exit_code)


def named(workload: Workload) -> dict[str, str]:
    """Return the names of the model and of the task, as the record has them."""
    return {"model": Path(workload.resolved.source.name).name, "task": workload.resolved.task.name}


def commit_of(checkout: Path | None) -> str | None:
    """Return the short hash of the checkout's HEAD commit; None without a checkout, or if git cannot read it."""
    if checkout is None:
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def numbers(speed: Speed, costs: dict[str, float], verdicts: list[targets.Verdict]) -> dict[str, Any]:
    """Return the measured part of the record: figures, ranges of ratios, targets, and contenders that were left out."""
    return {
        "rows": speed.texts,
        "figures": targets.figures(speed) | costs,
        "ranges": {name: [one.low, one.high] for name, one in targets.ratios(speed).items()},
        "targets": [recorded(one) for one in verdicts],
        "left_out": speed.left_out,
    }


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds (default 5)")
    parser.add_argument("--rows", type=int, metavar="N", help="run the first N validation rows (default all)")
    parser.add_argument("--demo", action="store_true", help="use the demo's model and rows even if ../shared exists")
    parser.add_argument(
        "--base", action="store_true", help="run a model with DistilBERT-base's shapes and random weights"
    )
    parser.add_argument("--tokens", type=int, metavar="N", help="make all rows N tokens long by repeating their texts")
    parser.add_argument(
        "--file-order", action="store_true", help="run all contenders on batches of 32 rows in file order"
    )
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="also run INT8 of this checkout of an earlier version"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="build in FOLDER, and reuse the graphs that are there"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(CONTENDERS),
        choices=CONTENDERS,
        metavar="NAME",
        help=f"contenders to run in addition to the pipeline (default all): {', '.join(CONTENDERS)}",
    )
    parser.add_argument(
        "--costs",
        nargs="*",
        default=list(COSTS),
        choices=COSTS,
        metavar="NAME",
        help=f"costs to measure (default all): {', '.join(COSTS)}",
    )
    parser.add_argument(
        "--calib-method", default="auto", metavar="METHOD", help="range method of our INT8 graphs (default auto)"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    parser.add_argument("--strict", action="store_true", help="end with exit code 3 if a target is not met")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser.parse_args()


def described() -> dict[str, Any]:
    """Return the date, the environment, and the machine's load average over the last minute."""
    extra = {package: version_of(package) for package in PACKAGES}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_1min": os.getloadavg()[0],
        "environment": {**describe(), **extra, "amx": "amx_bf16" in cpu_flags()},
    }


def print_tables(speed: Speed, verdicts: list[targets.Verdict], *, as_markdown: bool) -> None:
    """Print the contenders' figures, the targets, and the contenders that were left out with their reasons."""
    for cells in (table.cells(speed.rows), table.verdicts(verdicts)):
        if as_markdown:
            print(table.markdown(cells))
        else:
            table.show(cells)
    for name, why in speed.left_out.items():
        print(f"left out: {name}: {why}")
    print(f"AMX: {'yes' if 'amx_bf16' in cpu_flags() else 'no'}; {speed.texts} rows")


def recorded(one: targets.Verdict) -> dict[str, Any]:
    """Return a verdict in the form of the record: the figure's name, its bound and value, and whether it is met."""
    bound = {"most" if one.target.most else "least": one.target.bound}
    return {"figure": one.target.figure, **bound, "found": one.found, "met": one.met, "verdict": one.word}


if __name__ == "__main__":
    main()
