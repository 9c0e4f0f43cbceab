"""`toolchain sweep`: build and evaluate a grid of cells, one for each combination of options."""

import argparse
from pathlib import Path

from toolchain.cli.output import emit, log


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the file of the sweep, and the options that choose which of its cells run."""
    parser.add_argument(
        "file", metavar="RECIPE", help="a sweep (*.toml): a recipe whose options may be lists of values"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="folder of its bundles and results (default eval/results/<name of the file>)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one key of the file")
    parser.add_argument("--only", metavar="PATTERN", help="run only cells whose names match, such as 'int8*'")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the cells and a forecast of the time, and run none"
    )
    parser.add_argument(
        "--search",
        type=int,
        metavar="N",
        help="run only N cells of the grid; each is chosen by the results of the cells before it",
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="run the cells on a Ray cluster: HOST:PORT, or auto")
    parser.add_argument("--yes", action="store_true", help="allow more than 1,000 cells")


def run(args: argparse.Namespace) -> int:
    """Run the cells that are not done, and print all cells. Return the exit code: 1 if a cell failed, else 0."""
    from toolchain.cli.show.sweep import swept
    from toolchain.sweep import Asked, sweep

    output = Path(args.output) if args.output else None
    asked = Asked(args.set, args.only, args.yes, args.dry_run, output, args.search, args.ray)
    record = sweep(Path(args.file), asked, tell=log.info)
    emit(args, record, swept)
    return 0 if args.dry_run else int(any(cell["state"] == "failed" for cell in record["cells"]))
