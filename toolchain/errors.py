"""Every error that a user can cause or fix, each with the exit code of the command that it ends.

* ToolchainError
  - InputError    1  a file that was given is broken, missing or of the wrong kind
  - UsageError    2  an unknown name or option, a value out of range
  - GateError     3  an artefact differs from its model by more than the gate allows
  - MachineError  4  this machine lacks something: a library, a GPU, the hub

A message reads `<where>: <what, with the value>. <what to do>.` The user sees nothing else. Any other exception is
a bug in this project and keeps its traceback.
"""

import sys
from collections.abc import Iterable


class ToolchainError(Exception):
    """Base of the errors whose message is written for the user."""

    exit_code = 1


class InputError(ToolchainError):
    """A given file or folder cannot be used."""


class TextError(InputError):
    """A text that the model cannot take: `text` has the texts of its row. Whoever knows its place adds it."""

    def __init__(self, text: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.text = text


class UsageError(ToolchainError):
    """The request names something unknown, or a value out of range."""

    exit_code = 2


class GateError(ToolchainError):
    """An artefact differs from its model by more than is allowed."""

    exit_code = 3


class MachineError(ToolchainError):
    """The request needs something that this machine lacks."""

    exit_code = 4


def meant(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean X?` for the known word that is most like an unknown one, or nothing if none is alike."""
    import difflib

    found = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {found[0]}?" if found else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def innermost(error: BaseException) -> BaseException:
    """Return the exception that an exception was raised for, at the end of the chain of causes."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return error


# Packages that [cpu] and [cuda] bring, and that an install which only runs bundles lacks.
OF_BUILD = {"torch", "transformers", "datasets", "evaluate", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn"}
OF_BUILD |= {"onnxscript", "google"}


def why_not_imported(error: BaseException) -> str:
    """Return why an import failed and what to do, from the innermost cause: libraries hide it behind their own names.

    A folder without code that stands where Python looks for packages is imported as one, if the package of its name is
    not installed. Such a folder is named.
    """
    inner = innermost(error)
    # `obj` is the module of an AttributeError.
    name = inner.name if isinstance(inner, ImportError) else getattr(getattr(inner, "obj", None), "__name__", None)
    package = sys.modules.get(str(name).partition(".")[0])
    if package and not getattr(package, "__file__", None) and (folders := list(getattr(package, "__path__", ()))):
        return (
            f"the folder {folders[0]} was imported in the place of the Python package {package.__name__}. "
            "Rename the folder, or start in another one."
        )
    if isinstance(inner, ModuleNotFoundError) and name and name.partition(".")[0] in OF_BUILD:
        advice = "Install it with: pip install 'encoder-toolchain[cpu]' (or [cuda] on a machine with an NVIDIA GPU)"
        return f"the Python package {name} is not installed. {advice}."
    if isinstance(inner, ModuleNotFoundError) and name:
        return f"the Python package {name} is not installed. Install it."
    return f"a library cannot be imported ({type(inner).__name__}: {first_line(inner)}). Install it again."


# Ctrl-C: 128 + SIGINT, as shells number it.
INTERRUPTED = 130
