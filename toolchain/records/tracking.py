"""The record of `toolchain report --to`: the runs of a tracking server that have the results."""

from typing import Literal, TypedDict


class TrackedRun(TypedDict):
    """One result in a tracking server."""

    result: str
    """File of the result."""
    sha256: str
    """Digest of the result, by which it is known there."""
    run: str
    """Identifier of its run."""
    state: Literal["written", "there"]
    """Whether this call wrote it, or it was there already."""


class Tracked(TypedDict):
    """All runs of one call."""

    to: str
    """Where they are, as the command line names it."""
    runs: list[TrackedRun]
    """One run for each result."""
