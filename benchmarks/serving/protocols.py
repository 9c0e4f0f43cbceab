"""The throughput of `toolchain serve` over gRPC and over HTTP, measured with Triton's load generator perf_analyzer.

One service gets the same texts over both protocols in interleaved rounds. The benchmark needs perf_analyzer in
.venv/perf_analyzer and the CUDA runtime of Triton in .venv/triton, where `make test-all` installs them.
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from interleave import Ratio
from servers import NAME, ROOT, ours, triton
from table import show
from workloads import WORKLOADS

sys.path.insert(0, str(ROOT / "tests/triton"))
from perf import find_analyzer

CLIENTS = (1, 8, 32)
HTTP, GRPC = "http", "grpc"
# Requests that each client sends in one measurement.
REQUESTS = 60


def per_s(run: Callable[..., Any], folder: Path, wire: str, address: str, clients: int) -> float:
    """Return the inferences per second with `clients` clients, each of which waits for the response before it goes on.

    `run` calls perf_analyzer, and `folder` has its input in.json. `wire` is the protocol, `http` or `grpc`.

    Raises:
        RuntimeError: perf_analyzer fails; the message is its own output.
    """
    target = ("-m", NAME, "-i", wire, "-u", address, "--input-data", folder / "in.json")
    load = ("--concurrency-range", clients, "--measurement-mode", "count_windows")
    count = ("--measurement-request-count", REQUESTS * clients, "-s", 999, "-r", 3, "-f", folder / "out.csv")
    done = run(*target, *load, *count)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    header, row, *_ = (folder / "out.csv").read_text().splitlines()
    return float(dict(zip(header.split(","), row.split(","), strict=False))["Inferences/Second"])


def measure(name: str, folder: Path, *, rounds: int) -> list[tuple[str, ...]]:
    """Return a table with a row for each number of clients: inferences/s over HTTP and over gRPC, and their ratio.

    The ratio is gRPC's inferences/s divided by HTTP's: the median over rounds, and the smallest and largest of a round.
    """
    bundle, texts = WORKLOADS[name](folder)
    (folder / "in.json").write_text(json.dumps({"data": [{"TEXT": [text]} for text in texts]}), encoding="utf-8")
    run = find_analyzer(ROOT, triton.find_environment(ROOT).libraries, folder)
    table: list[tuple[str, ...]] = [(name, "clients", "HTTP/s", "gRPC/s", "gRPC / HTTP")]
    port = triton.free_ports(1)[0]
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(ours(bundle, "--grpc-port", str(port), grpc=True)).removeprefix("http://")
        at = {HTTP: address, GRPC: f"127.0.0.1:{port}"}
        generator = random.Random(0)
        for clients in CLIENTS:
            found: dict[str, list[float]] = {HTTP: [], GRPC: []}
            for number in range(rounds + 1):  # the first round warms up
                for wire in generator.sample(sorted(at), 2):
                    one = per_s(run, folder, wire, at[wire], clients)
                    if number:
                        found[wire].append(one)
            pairs = [grpc / http for http, grpc in zip(found[HTTP], found[GRPC], strict=True)]
            ratio = Ratio(statistics.median(pairs), min(pairs), max(pairs))
            shown = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
            table.append(("", str(clients), *(f"{statistics.median(found[wire]):.0f}" for wire in (HTTP, GRPC)), shown))
    return table


def main() -> None:
    """Measure each model, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds (default 5)")
    parser.add_argument("--only", nargs="+", default=["base", "embedded"], choices=WORKLOADS)
    args = parser.parse_args()
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            show(measure(name, Path(folder), rounds=args.rounds))


if __name__ == "__main__":
    main()
