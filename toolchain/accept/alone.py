"""Calls a function in a process of its own, because a CUDA error can make all later CUDA calls of a process fail."""

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

# A forked process has the libraries that its parent has imported; a new process would take seconds to import them. CUDA
# does not work in a fork of a process that has used it, so the calling process must not use CUDA.
CONTEXT = multiprocessing.get_context("fork")
LIBRARIES = (
    "torch",
    "onnxscript",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",  # also imports what all models of transformers share
    "scipy.stats",
    "sklearn.metrics",
    "datasets",
)


def preload() -> None:
    """Import the libraries that most calls need, so that each fork has them already.

    None of them opens a GPU, or starts a thread, which a fork would lack.
    """
    for name in LIBRARIES:
        importlib.import_module(name)


def call_alone(function: Callable[..., Value], *arguments: object) -> Value:
    """Call a function in a forked process, and return its value, which must be picklable.

    What the function prints goes to stderr.

    Raises:
        ToolchainError: the function raised this error.
        MachineError: the process ended before it returned a value. The message has its exit code or signal.
    """
    receive, send = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_answer, args=(send, function, arguments))
    process.start()
    send.close()  # so that the pipe ends when the other process ends
    try:
        value: Value | ToolchainError = receive.recv()
    except EOFError:
        process.join()
        ending = _ending(process.exitcode or 0)
        raise MachineError(f"the process ended with {ending} before it returned a value") from None
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
    except KeyboardInterrupt:  # the process that waits prints the message
        sys.exit(INTERRUPTED)
    send.send(value)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
