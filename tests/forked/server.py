"""A server that forks Python processes in which the heavy third-party libraries are imported already.

A process of the tests that needs torch costs four CPU seconds before its first line. The server imports the libraries
once, starts no thread, and forks a child for each request; nothing of `toolchain` is imported in the server, so each
child imports the toolchain anew. `client.py` sends the requests and stands for the child towards its caller.

    python server.py SOCKET    # ends when its standard input is closed
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import logging
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# The third-party modules that `toolchain build` and `toolchain eval` load. ONNX Runtime is not among them: its import
# takes 0.04 s and starts a thread, which no fork would have. (OpenBLAS and jemalloc start theirs anew in a fork.)
PRELOADED = (
    "datasets",
    "evaluate",
    "matplotlib.pyplot",
    "onnx_ir.passes.common",
    "onnxscript",
    "pandas",
    "pytest",
    "rich.table",
    "scipy.stats",
    "threadpoolctl",
    "sklearn.metrics",
    "networkx",
    "torch.onnx._internal.exporter._core",
    "torch.onnx._internal.exporter._fx_passes",
    "torch.onnx._internal.exporter._torchlib.ops",
    "torch._inductor.codecache",
    "torch._dynamo",
    "torch.export",
    "transformers.conversion_mapping",
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
    "transformers.models.roberta.modeling_roberta",
)

# The module with the exporter's table of ONNX operators, and the opset for which the toolchain needs the table.
REGISTRATION = "torch.onnx._internal.exporter._registration"
OPSET = 18

# The type of a function whose results are cached.
CACHED = type(functools.cache(len))

# Environment variable with the program that a child starts as Python: one that is forked too.
EXECUTABLE = "TOOLCHAIN_FORK_PYTHON"


@dataclass
class Child:
    """A forked process, the client that waits for it, and the descriptor that reports its end."""

    pid: int
    client: socket.socket
    ended: int


def serve(path: str) -> dict[str, Any]:
    """Answer requests until standard input is closed; in each forked child, return the request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    os.write(sys.stdout.fileno(), b"listening\n")
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ, "owner")
        selector.register(listener, selectors.EVENT_READ, "listener")
        while True:
            for key, _ in selector.select():
                if key.data == "owner":
                    raise SystemExit(0)
                if key.data == "listener":
                    request = accept(listener, selector)
                    if request is not None:
                        return request
                elif key.fileobj == key.data.ended:
                    report(key.data, selector)
                else:
                    forward(key.data, selector)


def accept(listener: socket.socket, selector: selectors.BaseSelector) -> dict[str, Any] | None:
    """Fork a child for one request; return the request in the child, and None in the server."""
    client, _ = listener.accept()
    data, descriptors, _, _ = socket.recv_fds(client, 1 << 20, 3)
    while not data.endswith(b"\n"):
        data += client.recv(1 << 20)
    preload()
    pid = os.fork()
    if pid == 0:
        become(descriptors, [client, *(key.fileobj for key in selector.get_map().values())])
        request: dict[str, Any] = json.loads(data)
        return request
    for descriptor in descriptors:
        os.close(descriptor)
    child = Child(pid, client, os.pidfd_open(pid))
    selector.register(child.ended, selectors.EVENT_READ, child)
    selector.register(client, selectors.EVENT_READ, child)
    return None


def become(streams: list[int], inherited: list[Any]) -> None:
    """Make the streams 0, 1 and 2 of this process, and close what it inherited from the server."""
    for held in inherited:
        descriptor = held.detach() if isinstance(held, socket.socket) else held
        if descriptor > 2:
            os.close(descriptor)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)


def preload() -> None:
    """Import the libraries before the first child; later calls find them imported."""
    if "torch" in sys.modules:
        return
    for name in PRELOADED:
        importlib.import_module(name)
    # transformers makes its table of renamed weights, a thousand patterns, when the first model is loaded.
    sys.modules["transformers.conversion_mapping"].get_checkpoint_conversion_mapping("bert")
    cache_operators()
    logging.disable(logging.CRITICAL)  # the exporter warns of operators of packages that are not installed
    sys.modules[REGISTRATION].ONNXRegistry.from_torchlib(opset_version=OPSET)
    logging.disable(logging.NOTSET)
    assert not any(name.split(".")[0] == "toolchain" for name in sys.modules)
    assert threading.active_count() == 1, "a fork copies no thread"
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False  # torch's operators, whose memory goes with the process in any case
    gc.collect()
    gc.freeze()  # no collection of a child writes to, and so copies, the pages that it shares with the server


def cache_operators() -> None:
    """Cache the table of ONNX operators of PyTorch's exporter in this process, if the exporter is imported.

    The exporter would build the same table for each graph, which takes 0.4 CPU seconds.
    """
    if (module := sys.modules.get(REGISTRATION)) and not isinstance(module.ONNXRegistry.from_torchlib, CACHED):
        module.ONNXRegistry.from_torchlib = staticmethod(functools.cache(module.ONNXRegistry.from_torchlib))


def report(child: Child, selector: selectors.BaseSelector) -> None:
    """Send a child's wait status to its client."""
    _, status = os.waitpid(child.pid, 0)
    selector.unregister(child.ended)
    os.close(child.ended)
    if child.client.fileno() >= 0:
        selector.unregister(child.client)
        with contextlib.suppress(OSError):  # the client was killed at the same moment
            child.client.sendall(status.to_bytes(4, "big"))
        child.client.close()


def forward(child: Child, selector: selectors.BaseSelector) -> None:
    """Send a child the signals that its client received; the end of a client is the end of its child."""
    numbers = b""
    with contextlib.suppress(ConnectionResetError):
        numbers = child.client.recv(64)
    for number in numbers or [signal.SIGKILL]:
        os.kill(child.pid, number)  # it was not waited for, so the number is still that of the child
    if not numbers:
        selector.unregister(child.client)
        child.client.close()


def run(arguments: list[str], folder: str, environment: dict[str, str], processors: list[int]) -> None:
    """Do in this process what `python ARGUMENTS` does: -m MODULE, -c CODE or FILE, with its own arguments."""
    os.sched_setaffinity(0, processors)
    # The libraries counted the server's processors when they were loaded. More threads than the child has processors
    # wait for each other in loops that use the processor: a GELU of torch took 400 times as long.
    sys.modules["torch"].set_num_threads(len(processors))
    sys.modules["threadpoolctl"].threadpool_limits(len(processors))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    sys.executable = environment.get(EXECUTABLE, sys.executable)
    kind, *rest = arguments if arguments[0] in ("-m", "-c") else ("file", *arguments)
    first = {"-m": folder, "-c": ""}.get(kind, str(Path(rest[0]).resolve().parent))
    added = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [first, *added]
    importlib.invalidate_caches()
    sys.argv = [*({"-c": ["-c"]}.get(kind, rest[:1])), *rest[1:]]
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    else:
        runpy.run_path(rest[0], run_name="__main__")


def finish(work: Callable[[], None]) -> NoReturn:
    """Do the work and end the process as the interpreter does, but for the tear-down of all that was imported.

    The tear-down writes to each page that the child shares with the server, which takes 0.7 CPU seconds.
    """
    code: Any = 0
    try:
        work()
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        code = -signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int | None):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 255)


if __name__ == "__main__":
    asked = serve(sys.argv[1])  # comes back in a child only
    finish(lambda: run(**asked))
