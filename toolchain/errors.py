"""The errors that a user can cause or fix, with the exit code of a command that ends with such an error.

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
    """Base class of the errors in this module. Their messages are written for users."""

    exit_code = 1


class InputError(ToolchainError):
    """A file or folder that was given cannot be used."""


class TextError(InputError):
    """The model cannot be run on a text. `text` has the texts of the row: one, or two for a text pair.

    `Rows.placed` turns this error into an InputError that names the file and the number of the row.
    """

    def __init__(self, text: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.text = text


class UsageError(ToolchainError):
    """The request names something unknown, or a value out of range."""

    exit_code = 2


class GateError(ToolchainError):
    """An artefact, such as an INT8 graph, differs from the model that it was made from by more than is allowed."""

    exit_code = 3


class MachineError(ToolchainError):
    """The request needs something that this machine lacks."""

    exit_code = 4


def meant(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean X?` with the word in `known` that is most similar to `word`; "" if none is similar."""
    import difflib

    found = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {found[0]}?" if found else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def innermost(error: BaseException) -> BaseException:
    """Return the exception at the end of the chain of causes of `error`, which was raised first."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    return error


# Import names of packages that the extras [cpu] and [cuda] install. An installation that only runs bundles lacks them.
OF_BUILD = {"torch", "transformers", "datasets", "evaluate", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn"}
OF_BUILD |= {"onnxscript", "google"}


def why_not_imported(error: BaseException) -> str:
    """Return why an import failed and what to do about it, from the first exception in the chain of causes.

    If a package is not installed, Python may import a folder of the same name instead, as an empty package. The message
    then names this folder.
    """
    inner = innermost(error)
    # For an AttributeError, `obj` is the module that lacks the attribute.
    name = inner.name if isinstance(inner, ImportError) else getattr(getattr(inner, "obj", None), "__name__", None)
    package = sys.modules.get(str(name).partition(".")[0])
    if package and not getattr(package, "__file__", None) and (folders := list(getattr(package, "__path__", ()))):
        return (
            f"the folder {folders[0]} was imported instead of the Python package {package.__name__}. "
            "Rename this folder, or run the command in another folder."
        )
    if isinstance(inner, ModuleNotFoundError) and name and name.partition(".")[0] in OF_BUILD:
        advice = "Install it with: pip install 'encoder-toolchain[cpu]' (or [cuda] on a machine with an NVIDIA GPU)"
        return f"the Python package {name} is not installed. {advice}."
    if isinstance(inner, ModuleNotFoundError) and name:
        return f"the Python package {name} is not installed. Install it."
    return f"a library cannot be imported ({type(inner).__name__}: {first_line(inner)}). Install this library again."


# Exit code after Ctrl-C: 128 + SIGINT (2), as in shells.
INTERRUPTED = 130
