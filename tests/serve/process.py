"""`toolchain serve` in a process of its own, as a user runs it, and measurements of it from outside."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
RUN = "import sys; from toolchain.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True)
class Served:
    """A running service: `url` is http://host:port, `grpc` is host:port."""

    process: "subprocess.Popen[str]"
    url: str
    grpc: str
    log: IO[str]

    @property
    def address(self) -> str:
        return self.url.removeprefix("http://")

    def infer_url(self) -> str:
        return f"{self.url}/v2/models/sentiment/infer"

    def metrics(self) -> dict[str, float]:
        """Return the counters. A failure has the name of its reason."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=60) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples]
        names = (sample.labels.get("reason", sample.name.removesuffix("_total")) for sample in samples)  # the parser's
        return dict(zip(names, (sample.value for sample in samples), strict=True))

    def resident_mb(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmRSS"))

    def clients(self) -> set[int]:
        """Return the ports of the clients that are connected."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ends = [(*(int(end.split(":")[1], 16) for end in row[1:3]), row[3]) for row in rows]
        ours = int(self.address.split(":")[1])
        return {theirs for local, theirs, state in ends if (local, state) == (ours, "01")}  # established

    def stderr(self) -> str:
        """Return everything that the process has written to stderr."""
        self.log.seek(0)
        return self.log.read()


@contextlib.contextmanager
def running(
    bundle: Path, *options: Any, script: str = "", python: Sequence[str] = (sys.executable,)
) -> Iterator[Served]:
    """Serve a bundle as `sentiment` on free ports of the loopback. `script` runs first, in the same process.

    The memory of the process can be read only if `python` is the interpreter itself.
    """
    command = [
        *python,
        "-c",
        script + RUN,
        "serve",
        bundle,
        "--http-port",
        0,
        "--grpc-port",
        0,
        "--device",
        "cpu",
        "--name",
        "sentiment",
        "--drain",
        0,
        "--json",
        *options,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (
        tempfile.TemporaryFile("w+", errors="backslashreplace") as log,
        subprocess.Popen(
            [*map(str, command)], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            assert process.stdout
            line = process.stdout.readline()
            log.seek(0)
            assert line, log.read()
            found = json.loads(line)
            yield Served(process, found["http"], found["grpc"], log)
        finally:
            process.terminate()
