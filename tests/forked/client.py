"""Run Python in a child of the server, as `python` would: python -I -S client.py SOCKET -m MODULE ...

It stands for the child: with its streams, folder, environment and arguments; signals go to the child; the exit code
is the child's. Only the standard library is imported, so that it starts at once.
"""

import json
import os
import signal
import socket
import sys
from typing import Any

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[1])
    request = {
        "arguments": sys.argv[2:],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "processors": list(os.sched_getaffinity(0)),
    }
    data = json.dumps(request).encode() + b"\n"

    def forward(number: int, frame: Any) -> None:
        server.sendall(bytes([number]))

    sent = socket.send_fds(server, [data], [0, 1, 2])
    server.sendall(data[sent:])
    for number in FORWARDED:
        signal.signal(number, forward)
    status = server.recv(4)
    if not status:
        sys.exit("the server of forked processes has ended")
    code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
