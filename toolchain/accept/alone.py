"""A call in a process of its own: an error of CUDA can make every later call of its process fail."""

import contextlib
import importlib
import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

from toolchain.errors import INTERRUPTED, MachineError, ToolchainError

Value = TypeVar("Value")

# A process that has opened a GPU cannot be forked, so the one that calls must leave CUDA alone. A fork has the
# libraries that its parent imported; a process that starts afresh would import for seconds.
CONTEXT = multiprocessing.get_context("fork")
LIBRARIES = (
    "torch",
    "onnxscript",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",  # and all that models of transformers share
    "scipy.stats",
    "sklearn.metrics",
    "datasets",
)


def preload() -> None:
    """Import what most calls need. None of it opens a GPU or starts a thread that a fork would lack."""
    for name in LIBRARIES:
        importlib.import_module(name)


def call_alone(function: Callable[..., Value], *arguments: object) -> Value:
    """Call a function of a module in a process of its own, and return its value.

    What the function prints goes to stderr. Its value is pickled.

    Raises:
        ToolchainError: what the function raised.
        MachineError: the process ended before it answered. The message says how.
    """
    receive, send = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_answer, args=(send, function, arguments))
    process.start()
    send.close()  # so that the end of the process is the end of the pipe
    try:
        value: Value | ToolchainError = receive.recv()
    except EOFError:
        process.join()
        raise MachineError(f"its process ended with {_ending(process.exitcode or 0)} before it answered") from None
    finally:
        if process.is_alive():
            process.join(1)  # a driver may take a moment to close
            process.kill()
        process.join()
    if isinstance(value, ToolchainError):
        raise value
    return value


def _answer(send: Connection, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            value = function(*arguments)
    except ToolchainError as error:
        value = error
    except KeyboardInterrupt:  # the process that waits says so
        sys.exit(INTERRUPTED)
    send.send(value)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
