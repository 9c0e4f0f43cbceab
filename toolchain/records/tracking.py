"""The record of `toolchain report --to`, which writes results to a tracking server: MLflow or Weights & Biases."""

from typing import Literal, TypedDict


class TrackedRun(TypedDict):
    """The run on a tracking server that holds one result."""

    result: str
    """File of the result, on this machine."""
    sha256: str
    """SHA-256 of the result, hexadecimal, by which the result is found on the server again."""
    run: str
    """Id of the run on the server."""
    state: Literal["written", "there"]
    """`written`: this command wrote the run; `there`: an earlier command had written it."""


class Tracked(TypedDict):
    """The runs on a tracking server for all results of one command."""

    to: str
    """The server, as named with `--to`."""
    runs: list[TrackedRun]
    """One run for each result."""
