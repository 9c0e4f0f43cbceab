"""The process of LoadGen: asks on stdout, reads which samples are answered on stdin, writes its logs to a folder.

Run as `python -m toolchain.mlperf.generator ASKED` in that folder; ASKED is JSON: `scenario` as LoadGen names it,
`rows` of the sample library, and `settings`, LoadGen's own by name, that replace those of MLPerf's rules.
"""

import json
import os
import signal
import sys
import threading
from array import array
from pathlib import Path
from typing import Any

from toolchain.mlperf.wire import Inbox, send

MODEL = "encoder"
"""A name that MLPerf's rules have no exceptions for."""


def main() -> None:
    """Run one test."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that answers; it ends this one
    import mlperf_loadgen as loadgen

    asked = json.loads(sys.argv[1])
    questions = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever LoadGen prints is no question

    def issue(samples: list[Any]) -> None:
        numbers = array("Q")
        for sample in samples:
            numbers.extend((sample.id, sample.index))
        send(questions, numbers)

    threading.Thread(target=_complete, args=(loadgen,), daemon=True).start()
    library = loadgen.ConstructQSL(asked["rows"], asked["rows"], _nothing, _nothing)
    system = loadgen.ConstructSUT(issue, _nothing)
    loadgen.StartTestWithLogSettings(system, library, _settings(loadgen, asked), _logging(loadgen))
    loadgen.DestroySUT(system)
    loadgen.DestroyQSL(library)


def _complete(loadgen: Any) -> None:
    """Tell LoadGen which samples are answered; end the process when nobody answers any more."""
    inbox = Inbox(sys.stdin.fileno())
    while answered := inbox.take():
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample, 0, 0) for sample in answered])
    os._exit(1)


def _nothing(*_: Any) -> None:
    """Load and unload no rows, which are with the process that answers; flush nothing."""


def _settings(loadgen: Any, asked: dict[str, Any]) -> Any:
    """Return MLPerf's rules for a scenario as they are built into LoadGen, with the changes that were asked for."""
    made = loadgen.TestSettings()
    Path("user.conf").touch()  # LoadGen reads its built-in rules only together with such a file
    if made.FromConfig("user.conf", MODEL, asked["scenario"], 1):
        raise RuntimeError("LoadGen does not take its own rules")
    made.scenario = getattr(loadgen.TestScenario, asked["scenario"])
    made.mode = loadgen.TestMode.PerformanceOnly
    for name, value in asked["settings"].items():
        setattr(made, name, value)
    return made


def _logging(loadgen: Any) -> Any:
    made = loadgen.LogSettings()
    made.enable_trace = False
    return made


if __name__ == "__main__":
    main()
