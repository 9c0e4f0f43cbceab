"""Ratios against what a user would pick instead, interleaved in one run: `make bench`.

Each contender runs the same rows, text in to logits out, in rounds of random order; a ratio is the
median over rounds of the ratio within a round, so that a machine that slows down slows all alike.
With ../shared the rows are GLUE's sst2 and the model a fine-tuned DistilBERT; without, the demo's.
"""

import argparse
import os
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
from subject import Subject, make, recipe

from calibration import calibration_cost
from toolchain.errors import GateError
from toolchain.files import write_json
from toolchain.runtimes.environment import describe, version_of

COSTS: dict[str, Callable[[Subject, int], dict[str, float]]] = {
    "calibration": lambda subject, rounds: calibration_cost(subject, rounds=rounds),
    "memory": lambda subject, rounds: memory_cost(subject),
    "metering": lambda subject, rounds: metering_cost(subject),  # last: it may bring a scripted driver into the process
}
PACKAGES = ("openvino", "optimum-onnx")


def main() -> None:
    """Run the comparison and what else is asked for, print it, keep it."""
    args = arguments()
    about = described()
    with tempfile.TemporaryDirectory() as folder:
        subject = make(recipe(demo=args.demo).replace(calib_method=args.calib_method), Path(folder))
        speed = measure(subject, args.only, rounds=args.rounds, limit=args.rows)
        verdicts = targets.judge(targets.figures(speed), targets.cpu_flags())
        tell(speed, verdicts, as_markdown=args.markdown)
        costs: dict[str, float] = {}
        for name in (name for name in COSTS if name in args.costs):
            costs |= COSTS[name](subject, args.rounds)
    for name, value in costs.items():
        print(f"{name:68} {value:9.3f}")
    if args.output:
        options = {"rounds": args.rounds, "calib_method": args.calib_method}
        write_json(args.output, {**named(subject), **options, **numbers(speed, costs, verdicts), **about})
    if args.strict and any(one.met is False for one in verdicts):
        sys.exit(GateError.exit_code)


def named(subject: Subject) -> dict[str, str]:
    """Return which model and task this is of."""
    return {"model": Path(subject.resolved.source.name).name, "task": subject.resolved.task.name}


def numbers(speed: Speed, costs: dict[str, float], verdicts: list[targets.Verdict]) -> dict[str, Any]:
    """Return what was found, as it is kept."""
    return {
        "rows": speed.texts,
        "figures": targets.figures(speed) | costs,
        "ranges": {name: [one.low, one.high] for name, one in targets.ratios(speed).items()},
        "targets": [recorded(one) for one in verdicts],
        "left_out": speed.left_out,
    }


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--rows", type=int, metavar="N", help="the first N validation rows (default all)")
    parser.add_argument("--demo", action="store_true", help="the demo's model and rows, whatever is in ../shared")
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(CONTENDERS),
        choices=CONTENDERS,
        metavar="NAME",
        help=f"these contenders, and the pipeline: {', '.join(CONTENDERS)}",
    )
    parser.add_argument(
        "--costs",
        nargs="*",
        default=list(COSTS),
        choices=COSTS,
        metavar="NAME",
        help=f"what else to measure (default all): {', '.join(COSTS)}",
    )
    parser.add_argument("--calib-method", default="auto", metavar="METHOD", help="of our INT8 (default auto)")
    parser.add_argument("--markdown", action="store_true", help="print the table for the README")
    parser.add_argument("--strict", action="store_true", help="end with 3 where a target is not met")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep the figures as JSON")
    return parser.parse_args()


def described() -> dict[str, Any]:
    """Return when and where this runs, and how busy the machine is before it does."""
    extra = {package: version_of(package) for package in PACKAGES}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_1min": os.getloadavg()[0],
        "environment": {**describe(), **extra, "amx": "amx_bf16" in targets.cpu_flags()},
    }


def tell(speed: Speed, verdicts: list[targets.Verdict], *, as_markdown: bool) -> None:
    """Print the table, what is not in it, and the targets."""
    for cells in (table.cells(speed.rows), table.verdicts(verdicts)):
        if as_markdown:
            print(table.markdown(cells))
        else:
            table.show(cells)
    for name, why in speed.left_out.items():
        print(f"left out: {name}: {why}")
    print(f"AMX: {'yes' if 'amx_bf16' in targets.cpu_flags() else 'no'}; {speed.texts} rows")


def recorded(one: targets.Verdict) -> dict[str, Any]:
    """Return a verdict as it is kept."""
    bound = {"most" if one.target.most else "least": one.target.bound}
    return {"figure": one.target.figure, **bound, "found": one.found, "met": one.met, "verdict": one.word}


if __name__ == "__main__":
    main()
