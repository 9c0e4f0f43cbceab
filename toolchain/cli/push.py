"""`toolchain push`: upload a bundle with a model card to a hub."""

import argparse
from pathlib import Path

from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: the bundle, the repository, and what to upload, write or list."""
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="folder of the bundle")
    add("repository", metavar="USER/NAME", help="repository on the hub; a new one is private")
    add("--public", action="store_true", help="create a public repository, or upload to an existing public one")
    add("-o", "--output", metavar="DIR", help="write the folder for the hub to DIR, and upload nothing")
    add("--dry-run", action="store_true", help="only list the files; write and upload nothing")
    add("--trust", metavar="DIGEST", help="digest that the bundle must have (sha256 in its bundle.json)")


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
