"""`toolchain push`: a bundle with a model card on a hub."""

import argparse
from pathlib import Path

from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the bundle, the repository, and what is done with them."""
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="folder of the bundle")
    add("repository", metavar="USER/NAME", help="repository on the hub; it is created as a private one")
    add("--public", action="store_true", help="create the repository as a public one, or upload to a public one")
    add("-o", "--output", metavar="DIR", help="write the folder here, and upload nothing")
    add("--dry-run", action="store_true", help="list the files, and write and upload nothing")
    add("--trust", metavar="DIGEST", help="digest that the bundle must have")


def run(args: argparse.Namespace) -> None:
    """Upload the bundle, or write its folder, or list its files."""
    from toolchain.cli.show.ship import pushed
    from toolchain.ship.push import push

    done = push(
        Path(args.bundle),
        args.repository,
        public=args.public,
        dry_run=args.dry_run,
        output=Path(args.output) if args.output else None,
        trust=args.trust,
    )
    emit(args, done, pushed)
