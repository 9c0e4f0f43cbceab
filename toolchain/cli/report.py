"""`toolchain report`: results side by side."""

import argparse
from pathlib import Path

from toolchain.base.progress import still
from toolchain.cli.output import log


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the results, the format, and the file to write."""
    parser.add_argument("-o", "--output", metavar="PATH", help="the file (default stdout)")
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


def run(args: argparse.Namespace) -> None:
    """Render the results to a file or to stdout."""
    from toolchain.base.files import write_text
    from toolchain.report.formats import format_for, render
    from toolchain.report.inputs import find_material

    output = Path(args.output) if args.output else None
    chosen = "json" if args.json else args.format or format_for(output)
    text = render(find_material(map(Path, args.results)), chosen)
    if output:
        write_text(output, text)
        log.info("%s", output)
    else:
        with still():
            print(text, end="")
