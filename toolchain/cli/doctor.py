"""`toolchain doctor`: list what this machine has and lacks."""

import argparse

from toolchain.cli.output import emit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add no arguments: the command always checks everything."""


def run(args: argparse.Namespace) -> None:
    """Check this machine and print the findings."""
    from toolchain.cli.show.doctor import examined
    from toolchain.diagnose.doctor import examine
    from toolchain.records.doctor import DoctorRecord

    emit(args, DoctorRecord(findings=[finding.to_json() for finding in examine()]), examined)
