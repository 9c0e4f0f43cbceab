"""Every error a user can cause or mend, each with the exit code of the command it ends.

* ToolchainError
  - InputError    1  a file that was given is broken, missing or of the wrong kind
  - UsageError    2  an unknown name or option, a value out of range
  - GateError     3  an artefact is not as near its model as was asked
  - MachineError  4  this machine lacks something: a library, a GPU, the hub

A message reads `<where>: <what, with the value>. <what to do>.` and is all the user sees;
anything else that is raised is a bug of ours and keeps its traceback.
"""


class ToolchainError(Exception):
    """Base of the errors whose message is written for the user."""

    exit_code = 1


class InputError(ToolchainError):
    """A file or folder that was given cannot be used."""


class UsageError(ToolchainError):
    """What was asked for does not exist or cannot be."""

    exit_code = 2


class GateError(ToolchainError):
    """An artefact differs from its model by more than is allowed."""

    exit_code = 3


class MachineError(ToolchainError):
    """What was asked for needs something that this machine has not."""

    exit_code = 4
