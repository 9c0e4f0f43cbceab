"""`toolchain doctor`: what this machine has and lacks."""

import argparse

from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: it looks at everything."""


def run(args: argparse.Namespace) -> None:
    """Look at this machine and print what was found."""
    from toolchain.cli.show.doctor import examined
    from toolchain.diagnose.doctor import examine
    from toolchain.records.doctor import DoctorRecord

    emit(args, DoctorRecord(findings=[finding.to_json() for finding in examine()]), examined)
