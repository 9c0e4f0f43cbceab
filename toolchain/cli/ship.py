"""`toolchain ship KIND`: write the files with which a server serves a bundle.

To add a kind, write its two functions and add its line to KINDS.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.cli.options import add_options, given
from toolchain.cli.output import emit
from toolchain.cli.serve import add_cache
from toolchain.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """One kind of output: the function that runs it, its line of help, and the function that adds its arguments."""

    run: Callable[[argparse.Namespace], None]
    text: str
    arguments: Callable[[argparse.ArgumentParser], None]


def _triton(args: argparse.Namespace) -> None:
    from toolchain.cli.show.ship import shipped
    from toolchain.ship.options import Options
    from toolchain.ship.triton import ship

    if args.lint:
        _lint(args)
        return
    if not args.output:
        raise UsageError("--output: the option is missing. Name the folder of the model repository with -o DIR.")
    emit(args, ship(_bundle(args), Path(args.output), Options(**given(args, Options)), trust=args.trust), shipped)


def _lint(args: argparse.Namespace) -> None:
    from toolchain.cli.show.ship import linted
    from toolchain.ship.lint import lint, require_no_errors

    if args.source or args.output:
        raise UsageError(f"--lint {args.lint}: this option checks an existing repository. Leave BUNDLE and -o out.")
    found = lint(Path(args.lint))
    emit(args, found, linted)
    require_no_errors(found)


def _triton_arguments(parser: argparse.ArgumentParser) -> None:
    from toolchain.ship.options import Options

    parser.add_argument("source", nargs="?", metavar="BUNDLE", help="folder of a bundle (default: the last one built)")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="folder of the model repository; other models in it are kept"
    )
    add_options(parser, Options.names(), Options)
    parser.add_argument(
        "--trust", metavar="DIGEST", help="digest that the bundle must have (sha256 in its bundle.json)"
    )
    parser.add_argument("--lint", metavar="DIR", help="check the repository DIR for faults, and write nothing")


def _service(args: argparse.Namespace) -> None:
    from toolchain.cli.show.ship import packed
    from toolchain.ship.service import ship_service

    if not args.output:
        raise UsageError("--output: the option is missing. Name the folder of the service with -o DIR.")
    emit(args, ship_service(_bundle(args), Path(args.output), **_choices(args)), packed)


def _image(args: argparse.Namespace) -> None:
    from toolchain.cli.show.ship import packed
    from toolchain.ship.service import ship_image

    emit(args, ship_image(_bundle(args), tag=args.tag, **_choices(args)), packed)


def _bundle(args: argparse.Namespace) -> Path:
    from toolchain.bundle import last_bundle

    return Path(args.source) if args.source else last_bundle()


def _choices(args: argparse.Namespace) -> dict[str, Any]:  # Any: the keyword arguments have different types
    """Return the keyword arguments that `ship_service` and `ship_image` share."""
    return {"name": args.name, "backend": args.backend, "cache": args.cache, "trust": args.trust}


def _service_arguments(parser: argparse.ArgumentParser) -> None:
    from toolchain.ship.service import BASES

    parser.add_argument("source", nargs="?", metavar="BUNDLE", help="folder of a bundle (default: the last one built)")
    parser.add_argument("--name", metavar="NAME", help="the model's name for clients (default: the checkpoint's name)")
    parser.add_argument("--backend", choices=BASES, default="ort", help="runtime of the service (default ort)")
    add_cache(parser)
    parser.add_argument(
        "--trust", metavar="DIGEST", help="digest that the bundle must have (sha256 in its bundle.json)"
    )


def _folder_arguments(parser: argparse.ArgumentParser) -> None:
    _service_arguments(parser)
    parser.add_argument("-o", "--output", metavar="DIR", help="folder of the service; an existing service is replaced")


def _image_arguments(parser: argparse.ArgumentParser) -> None:
    _service_arguments(parser)
    parser.add_argument(
        "--tag", metavar="IMAGE", help="name of the image (default: from the model name and the digest)"
    )


KINDS = {
    "triton": Kind(_triton, "a Triton model repository that takes texts and returns labels", _triton_arguments),
    "service": Kind(_service, "a folder for `docker compose up` that serves the bundle", _folder_arguments),
    "image": Kind(_image, "the same service as a container image, built with Docker", _image_arguments),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add one sub-command for each entry of KINDS. Each also accepts --json, -v and -q."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    for name, kind in KINDS.items():
        its = kinds.add_parser(name, help=kind.text, description=kind.text[0].upper() + kind.text[1:] + ".")
        its.set_defaults(kind=kind.run)
        unset = argparse.SUPPRESS  # keeps the value of a flag that was given before the kind
        its.add_argument("--json", action="store_true", default=unset, help="print the result as one JSON object")
        its.add_argument("-v", "--verbose", action="count", default=unset, help="show debug messages and tracebacks")
        its.add_argument("-q", "--quiet", action="count", default=unset, help="show warnings and errors only")
        kind.arguments(its)


def ship(args: argparse.Namespace) -> None:
    """Run the function of the kind that was given."""
    args.kind(args)
