"""`toolchain sweep`: a grid of cells, each by `build` and `eval`."""

import argparse
from pathlib import Path

from toolchain.cli.output import emit, log


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the file of the sweep, and the options that choose which of its cells run."""
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
    parser.add_argument("--only", metavar="PATTERN", help="run the cells with such names only, such as 'int8*'")
    parser.add_argument("--dry-run", action="store_true", help="print the cells and a forecast of time, and run none")
    parser.add_argument(
        "--search",
        type=int,
        metavar="N",
        help="run N cells of the grid, chosen by what those before them measured",
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="run the cells on a Ray cluster: HOST:PORT, or auto")
    parser.add_argument("--yes", action="store_true", help="run more than 1,000 cells")


def run(args: argparse.Namespace) -> int:
    """Run the cells that are not done, print all, and return 1 if one failed."""
    from toolchain.cli.show.sweep import swept
    from toolchain.sweep import Asked, sweep

    output = Path(args.output) if args.output else None
    asked = Asked(args.set, args.only, args.yes, args.dry_run, output, args.search, args.ray)
    record = sweep(Path(args.file), asked, tell=log.info)
    emit(args, record, swept)
    return 0 if args.dry_run else int(any(cell["state"] == "failed" for cell in record["cells"]))
