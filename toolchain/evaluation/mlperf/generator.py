"""The process in which LoadGen runs: it sends samples to be processed, and writes LoadGen's logs to its folder.

It runs as `python -m toolchain.evaluation.mlperf.generator DESCRIPTOR REQUEST`, and the logs are written to its working
directory. DESCRIPTOR is the file descriptor of the socket to `loadgen.py`. REQUEST is JSON with the keys `scenario`
(LoadGen's name), `rows` (size of the sample library) and `settings` (LoadGen's settings by name, which replace values
of MLPerf's rules). Messages are arrays of unsigned 64-bit numbers: this process sends an id and a row number for each
sample, and receives the ids of the samples that are complete.
"""

import json
import os
import signal
import sys
import threading
from array import array
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# A model name for which MLPerf's rules (mlperf.conf) have no special values.
MODEL = "encoder"


def main() -> None:
    """Run one LoadGen test, as the command line describes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent process, too, which then ends this one
    import mlperf_loadgen as loadgen

    connection, request = Connection(int(sys.argv[1])), json.loads(sys.argv[2])

    def issue(samples: list[Any]) -> None:
        numbers = array("Q")
        for sample in samples:
            numbers.extend((sample.id, sample.index))
        connection.send_bytes(numbers)

    threading.Thread(target=_complete, args=(loadgen, connection), daemon=True).start()
    library = loadgen.ConstructQSL(request["rows"], request["rows"], _nothing, _nothing)
    system = loadgen.ConstructSUT(issue, _nothing)
    loadgen.StartTestWithLogSettings(system, library, _settings(loadgen, request), _logging(loadgen))
    loadgen.DestroySUT(system)
    loadgen.DestroyQSL(library)


def _complete(loadgen: Any, connection: Connection) -> None:
    """Report complete samples to LoadGen as they arrive; end this process when the connection is closed."""
    try:
        while True:
            samples = array("Q", connection.recv_bytes())
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample, 0, 0) for sample in samples])
    except (EOFError, ConnectionError):
        os._exit(1)


def _nothing(*_: Any) -> None:
    """Do nothing. LoadGen calls this to load, unload or flush samples, but the other process holds all samples."""


# `request` is the JSON from the command line. Its settings have LoadGen's names and types.
def _settings(loadgen: Any, request: dict[str, Any]) -> Any:
    """Return LoadGen's built-in settings, which are MLPerf's rules for the scenario, with the requested changes."""
    settings = loadgen.TestSettings()
    Path("user.conf").touch()  # LoadGen reads its built-in rules only together with such a file
    if settings.FromConfig("user.conf", MODEL, request["scenario"], 1):
        raise RuntimeError("LoadGen cannot read its built-in rules for this scenario")
    settings.scenario = getattr(loadgen.TestScenario, request["scenario"])
    settings.mode = loadgen.TestMode.PerformanceOnly
    for name, value in request["settings"].items():
        setattr(settings, name, value)
    return settings


def _logging(loadgen: Any) -> Any:
    settings = loadgen.LogSettings()
    settings.enable_trace = False
    return settings


if __name__ == "__main__":
    main()
