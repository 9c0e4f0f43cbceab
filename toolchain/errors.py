"""Every error that a user can cause or fix, each with the exit code of the command that it ends.

* ToolchainError
  - InputError    1  a file that was given is broken, missing or of the wrong kind
  - UsageError    2  an unknown name or option, a value out of range
  - GateError     3  an artefact differs from its model by more than the gate allows
  - MachineError  4  this machine lacks something: a library, a GPU, the hub

A message reads `<where>: <what, with the value>. <what to do>.` The user sees nothing else. Any other exception is
a bug in this project and keeps its traceback.
"""


class ToolchainError(Exception):
    """Base of the errors whose message is written for the user."""

    exit_code = 1


class InputError(ToolchainError):
    """A given file or folder cannot be used."""


class UsageError(ToolchainError):
    """The request names something unknown, or a value out of range."""

    exit_code = 2


class GateError(ToolchainError):
    """An artefact differs from its model by more than is allowed."""

    exit_code = 3


class MachineError(ToolchainError):
    """The request needs something that this machine lacks."""

    exit_code = 4


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# Ctrl-C: 128 + SIGINT, as shells number it.
INTERRUPTED = 130
