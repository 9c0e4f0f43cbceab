"""Compare `toolchain serve` with other servers that run the same graph: part of `make bench`.

With a model of DistilBERT-base's shapes, most of the time is spent in the engine; with the demo's small model, in the
server. Each round loads all servers one after the other in random order. A ratio is the median over rounds of the ratio
within a round. The benchmark needs wrk. It compares with Triton if that is in .venv/triton, where `make test-all`
installs it.
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from load import Load, at_rate, closed, has_wrk
from servers import INFER, OPENVINO, OURS, PLAIN, SERVERS, TRITON
from table import show, verdicts
from targets import Target, judge
from workloads import WORKLOADS, Engine, bare_rows_per_s

from toolchain.base.files import write_json
from toolchain.errors import MachineError, ToolchainError
from toolchain.runtimes.environment import cpu_flags, describe

CLIENTS = (1, 8, 32)
# Name of the runtime without a server. It runs tokenised rows in batches of as many rows as a server has clients.
ENGINE = "engine alone"
# Rate of the open-loop load (requests at random times), as a fraction of the highest throughput.
BUSY = 0.8

P50, P99 = f"p50 of {OURS} / {PLAIN}, 1 client", f"p99 / p50 at {BUSY:.0%} load"


def versus(other: str, clients: int) -> str:
    """Return the name of the figure for our throughput divided by that of another server, with `clients` clients."""
    return f"{OURS} / {other}, {clients} clients"


TARGETS = {
    "base": (
        *(Target(versus(ENGINE, clients), 0.9) for clients in CLIENTS[1:]),
        *(Target(versus(TRITON, clients), 1.0) for clients in CLIENTS[1:]),
        *(Target(versus(PLAIN, clients), 1.15) for clients in CLIENTS[1:]),
        Target(P50, 1.1, most=True),
        Target(P99, 3.0, most=True),
    ),
    "embedded": (
        Target(versus(TRITON, CLIENTS[-1]), 1.3),
        Target(versus(PLAIN, CLIENTS[-1]), 2.0),
        Target(P50, 1.1, most=True),
    ),
    "long": (*(Target(versus(PLAIN, clients), 1.15) for clients in CLIENTS[1:]),),
}


def main() -> None:
    """Measure the servers on each model, and print the figures and the targets; write the figures with -o."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="interleaved rounds (default 3)")
    parser.add_argument(
        "--seconds", type=int, default=4, metavar="S", help="duration of one load in seconds (default 4)"
    )
    parser.add_argument("--only", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="build in FOLDER, and reuse the bundles that are there"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures as JSON")
    args = parser.parse_args()
    if not has_wrk():
        raise MachineError("the load generator wrk is not installed. Install it: apt-get install wrk.")
    kept = {}
    for name in args.only:
        with contextlib.nullcontext(args.keep / name) if args.keep else tempfile.TemporaryDirectory() as folder:
            kept[name] = measure(name, Path(folder), rounds=args.rounds, seconds=args.seconds)
        print_tables(name, kept[name])
    if args.output:
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "environment": describe()}
        write_json(args.output, {**about, "rounds": args.rounds, "seconds": args.seconds, "servers": kept})


def measure(name: str, folder: Path, *, rounds: int, seconds: int) -> dict[str, Any]:
    """Return the figures of each server and of the engine alone on one model, and the servers that were left out.

    `name` is a key of WORKLOADS, and `folder` takes the bundle. `seconds` is the duration of one load.
    """
    bundle, texts = WORKLOADS[name](folder)
    bodies = folder / "bodies"
    bodies.write_text("".join(json.dumps(body(text)) + "\n" for text in texts), encoding="utf-8")
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        addresses = {}
        for server, start in SERVERS.items():
            try:
                addresses[server] = stack.enter_context(start(bundle)) + INFER
            except Exception as error:
                left_out[server] = str(error).splitlines()[0]
        engine = stack.enter_context(Engine.of(bundle, texts))
        runs = interleaved(addresses, bodies, engine, rounds=rounds, seconds=seconds)
        most = statistics.median(load.per_s for load in runs[OURS, CLIENTS[-1]])
        busy = at_rate(addresses[OURS], bodies, per_s=BUSY * most, seconds=5 * seconds) if name == "base" else None
    return {"figures": figures(runs, busy), "left_out": left_out}


def body(text: str) -> dict[str, object]:
    """Return the body of a request for one text, in the Open Inference Protocol."""
    return {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": [text]}]}


Runs = dict[tuple[str, int], list[Load]]


def interleaved(addresses: dict[str, str], bodies: Path, engine: Engine, *, rounds: int, seconds: int) -> Runs:
    """Load each server with each number of clients, and run the engine alone at these batch sizes, once per round.

    Returns (server, number of clients) -> the figures of each round. A warm-up round is not returned.
    """
    generator = random.Random(0)
    slots = [(server, clients) for server in (*addresses, ENGINE) for clients in CLIENTS]
    runs: Runs = {slot: [] for slot in slots}
    for number in range(rounds + 1):  # the first round warms up
        for server, clients in generator.sample(slots, len(slots)):
            if server == ENGINE:
                found = bare_rows_per_s(engine, batch=clients, seconds=seconds)
            else:
                found = closed(addresses[server], bodies, clients=clients, seconds=seconds if number else 1)
            if number:
                runs[server, clients].append(found)
    return runs


def figures(runs: Runs, busy: Load | None) -> dict[str, float]:
    """Return figure -> value. A ratio is the median over rounds of the ratio within a round.

    `busy` has the figures of the open-loop load, or is None if it did not run.
    """
    found: dict[str, float] = {}
    for (server, clients), loads in runs.items():
        for name in ("per_s", "p50_ms", "p99_ms", "lost"):
            found[f"{server}, {clients} clients, {name}"] = statistics.median(getattr(load, name) for load in loads)
        if server != OURS:
            pairs = [pair for pair in zip(runs[OURS, clients], loads, strict=True) if all(load.per_s for load in pair)]
            if not pairs:  # one of the two servers answered no request
                continue
            found[versus(server, clients)] = statistics.median(mine.per_s / other.per_s for mine, other in pairs)
            if (server, clients) == (PLAIN, 1):
                found[P50] = statistics.median(mine.p50_ms / other.p50_ms for mine, other in pairs)
    if busy:
        found |= {P99: busy.p99_ms / busy.p50_ms, f"lost at {BUSY:.0%} load": busy.lost}
    return found


def print_tables(name: str, found: dict[str, Any]) -> None:
    """Print the figures of one model, whether they meet their targets, and the servers that were left out."""
    numbers = found["figures"]
    table = [(name, "clients", "requests/s", "p50 ms", "p99 ms", "lost", "ours / it")]
    for server in (OURS, OPENVINO, TRITON, PLAIN, ENGINE):
        for clients in CLIENTS:
            if (per_s := numbers.get((slot := f"{server}, {clients} clients") + ", per_s")) is not None:
                p50, p99, lost = (numbers[f"{slot}, {one}"] for one in ("p50_ms", "p99_ms", "lost"))
                ratio = numbers.get(versus(server, clients))
                table.append(
                    (
                        server,
                        str(clients),
                        f"{per_s:.0f}",
                        f"{p50:.2f}",
                        f"{p99:.2f}",
                        f"{lost:.0f}",
                        "" if ratio is None else f"{ratio:.2f}",
                    )
                )
    show(table)
    show(verdicts(judge(numbers, cpu_flags(), TARGETS[name])))
    for server, why in found["left_out"].items():
        print(f"left out: {server}: {why}")


if __name__ == "__main__":
    try:
        main()
    except ToolchainError as error:
        sys.exit(f"{error}")
