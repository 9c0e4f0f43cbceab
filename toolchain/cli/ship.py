"""`toolchain ship KIND`: what a server needs, from a bundle. To add a kind: its line in KINDS and two functions."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.cli.options import add_options, given
from toolchain.cli.output import emit
from toolchain.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """One thing that can be shipped: what makes it, its line of help, and its arguments."""

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
        raise UsageError("--output: missing. Name the model repository's folder with -o DIR.")
    emit(args, ship(_bundle(args), Path(args.output), Options(**given(args, Options)), trust=args.trust), shipped)


def _lint(args: argparse.Namespace) -> None:
    from toolchain.cli.show.ship import linted
    from toolchain.ship.lint import judge, lint

    if args.source or args.output:
        raise UsageError(f"--lint {args.lint}: looks at a repository and makes none. Leave BUNDLE and -o out.")
    found = lint(Path(args.lint))
    emit(args, found, linted)
    judge(found)


def _triton_arguments(parser: argparse.ArgumentParser) -> None:
    from toolchain.ship.options import Options

    parser.add_argument("source", nargs="?", metavar="BUNDLE", help="a bundle's folder (default the one built last)")
    parser.add_argument("-o", "--output", metavar="DIR", help="the model repository; one that is there is added to")
    add_options(parser, Options.names(), Options)
    parser.add_argument("--trust", metavar="DIGEST", help="the digest that the bundle must have")
    parser.add_argument("--lint", metavar="DIR", help="look for faults in an existing repository instead")


def _service(args: argparse.Namespace) -> None:
    from toolchain.cli.show.ship import packed
    from toolchain.ship.service import ship_service

    if not args.output:
        raise UsageError("--output: missing. Name the service's folder with -o DIR.")
    emit(args, ship_service(_bundle(args), Path(args.output), **_choices(args)), packed)


def _image(args: argparse.Namespace) -> None:
    from toolchain.cli.show.ship import packed
    from toolchain.ship.service import ship_image

    emit(args, ship_image(_bundle(args), tag=args.tag, **_choices(args)), packed)


def _bundle(args: argparse.Namespace) -> Path:
    from toolchain.bundle import last_bundle

    return Path(args.source) if args.source else last_bundle()


def _choices(args: argparse.Namespace) -> dict[str, Any]:
    return {"name": args.name, "backend": args.backend, "trust": args.trust}


def _service_arguments(parser: argparse.ArgumentParser) -> None:
    from toolchain.ship.service import BASES

    parser.add_argument("source", nargs="?", metavar="BUNDLE", help="a bundle's folder (default the one built last)")
    parser.add_argument("--name", metavar="NAME", help="the model's name on the wire (default the checkpoint's)")
    parser.add_argument("--backend", choices=BASES, default="ort", help="what runs it (default ort)")
    parser.add_argument("--trust", metavar="DIGEST", help="the digest that the bundle must have")


def _folder_arguments(parser: argparse.ArgumentParser) -> None:
    _service_arguments(parser)
    parser.add_argument("-o", "--output", metavar="DIR", help="the folder; one that is such a service is made again")


def _image_arguments(parser: argparse.ArgumentParser) -> None:
    _service_arguments(parser)
    parser.add_argument("--tag", metavar="IMAGE", help="the image's name (default by name and digest)")


KINDS = {
    "triton": Kind(_triton, "a Triton model repository: text in, label out", _triton_arguments),
    "service": Kind(_service, "a folder for `docker compose up`: toolchain serve with a bundle", _folder_arguments),
    "image": Kind(_image, "that service as an image, by Docker", _image_arguments),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add a sub-command for each kind; --json, -v and -q may stand behind it too."""
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    for name, kind in KINDS.items():
        its = kinds.add_parser(name, help=kind.text, description=kind.text[0].upper() + kind.text[1:] + ".")
        its.set_defaults(kind=kind.run)
        unless = argparse.SUPPRESS  # what stands before the kind stays as it is
        its.add_argument("--json", action="store_true", default=unless, help="print the result as one JSON object")
        its.add_argument("-v", "--verbose", action="count", default=unless, help="show more, and tracebacks")
        its.add_argument("-q", "--quiet", action="count", default=unless, help="show warnings and errors only")
        kind.arguments(its)


def ship(args: argparse.Namespace) -> None:
    """Make what was named."""
    args.kind(args)
