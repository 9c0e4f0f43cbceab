"""The process of LoadGen: it sends queries, receives the samples that are complete, and writes its logs to a folder.

Run it as `python -m toolchain.evaluation.mlperf.generator DESCRIPTOR REQUEST` in that folder. DESCRIPTOR is the number
of the socket to `loadgen`. REQUEST is JSON: `scenario` as LoadGen names it, `rows` in the sample library, and
`settings`, LoadGen's own by name, which replace those of MLPerf's rules. A message is an array of 64-bit numbers: to
`loadgen` an id and a row for each sample, from it the ids of the complete samples.
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

# A name for which MLPerf's rules have no exceptions.
MODEL = "encoder"


def main() -> None:
    """Run one test."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # after Ctrl-C the parent process ends this one
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
    """Report complete samples to LoadGen; end the process when the connection ends."""
    try:
        while True:
            samples = array("Q", connection.recv_bytes())
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample, 0, 0) for sample in samples])
    except (EOFError, ConnectionError):
        os._exit(1)


def _nothing(*_: Any) -> None:
    """Load and unload no rows, because the other process has them; flush nothing."""


# `request` is the JSON of the command line, whose settings have LoadGen's names and types.
def _settings(loadgen: Any, request: dict[str, Any]) -> Any:
    """Return MLPerf's rules for the scenario, which are built into LoadGen, with the requested changes."""
    settings = loadgen.TestSettings()
    Path("user.conf").touch()  # LoadGen reads its built-in rules only together with such a file
    if settings.FromConfig("user.conf", MODEL, request["scenario"], 1):
        raise RuntimeError("LoadGen refuses its own rules")
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
