"""`toolchain report`: put results side by side."""

import argparse
from pathlib import Path

from toolchain.base.progress import still
from toolchain.cli.output import emit, log
from toolchain.errors import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the results, the format, and the file to write."""
    parser.add_argument("-o", "--output", metavar="PATH", help="file to write (default stdout)")
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="results, bundles, or folders of them; for html also records of tune and power",
    )
    parser.add_argument(
        "--format",
        choices=("md", "html", "csv", "json", "optimum-benchmark"),
        help="format (default: by the suffix of -o, else md)",
    )
    parser.add_argument(
        "--to",
        metavar="mlflow[:URI]|wandb",
        help="log the results to MLflow or W&B instead; each result is logged only once",
    )


def run(args: argparse.Namespace) -> None:
    """Render the results to a file or to stdout, or write them to a tracking server."""
    from toolchain.base.files import write_text
    from toolchain.report.formats import format_for, render
    from toolchain.report.inputs import find_material

    if args.to:
        _track(args)
        return
    output = Path(args.output) if args.output else None
    chosen = "json" if args.json else args.format or format_for(output)
    text = render(find_material(map(Path, args.results)), chosen)
    if output:
        write_text(output, text)
        log.info("%s", output)
    else:
        with still():
            print(text, end="")


def _track(args: argparse.Namespace) -> None:
    from toolchain.cli.show import put
    from toolchain.report.inputs import find_material
    from toolchain.report.tracking import track

    if args.output or args.format:
        raise UsageError(
            "--to: no report is written with this option. Leave out -o and --format, or run `toolchain report` twice."
        )
    tracked = track(find_material(map(Path, args.results)).results, args.to)
    new = sum(run["state"] == "written" for run in tracked["runs"])
    emit(
        args,
        tracked,
        lambda _: put(f"{new} of {len(tracked['runs'])} results were new, and were written to {tracked['to']}"),
    )
