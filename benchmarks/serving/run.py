"""Servers side by side, the same graph in each: part of `make bench`.

On the shapes of DistilBERT-base the engine is the cost, on the embedded model the server is. Loads follow each other in
rounds of random order; a ratio is the median over rounds. Needs wrk, and Triton in .venv/triton as `make test` has it.
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

sys.path.insert(0, str(Path(__file__).parent.parent))

from load import Load, at_rate, closed, has_wrk
from servers import INFER, OURS, PLAIN, SERVERS, TRITON
from subjects import SUBJECTS, Engine, bare_rows_per_s
from table import show

from toolchain.environment import describe
from toolchain.errors import MachineError, ToolchainError
from toolchain.files import write_json

CLIENTS = (1, 8, 32)
BUSY = 0.8

TARGETS = {
    ("base", f"{OURS} / engine, 8 clients"): 0.9,
    ("base", f"{OURS} / engine, 32 clients"): 0.9,
    ("base", f"{OURS} / {TRITON}, 8 clients"): 1.0,
    ("base", f"{OURS} / {TRITON}, 32 clients"): 1.0,
    ("base", f"{OURS} / {PLAIN}, 8 clients"): 1.15,
    ("base", f"{OURS} / {PLAIN}, 32 clients"): 1.15,
    ("embedded", f"{OURS} / {TRITON}, 32 clients"): 1.3,
    ("embedded", f"{OURS} / {PLAIN}, 32 clients"): 2.0,
}
MOST = {
    ("base", f"p50 of {OURS} / {PLAIN}, 1 client"): 1.1,
    ("embedded", f"p50 of {OURS} / {PLAIN}, 1 client"): 1.1,
    ("base", "p99 / p50 at 80 % load"): 3.0,
}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="of one load")
    parser.add_argument("--only", nargs="+", default=list(SUBJECTS), choices=SUBJECTS)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep the figures as JSON")
    args = parser.parse_args()
    if not has_wrk():
        raise MachineError("wrk is not installed. Install it: apt-get install wrk.")
    kept = {}
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            kept[name] = contest(name, Path(folder), rounds=args.rounds, seconds=args.seconds)
        tell(name, kept[name])
    if args.output:
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "environment": describe()}
        write_json(args.output, {**about, "rounds": args.rounds, "seconds": args.seconds, "servers": kept})


def contest(name: str, folder: Path, *, rounds: int, seconds: float) -> dict[str, object]:
    """Return the figures of every server and of the bare engine on one model, and why some are left out."""
    bundle, texts = SUBJECTS[name](folder)
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
    """Return the request of one text, as the protocol has it."""
    return {"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": [text]}]}


Runs = dict[tuple[str, int], list[Load]]
ENGINE = "engine"


def interleaved(addresses: dict[str, str], bodies: Path, engine: Engine, *, rounds: int, seconds: float) -> Runs:
    """Load each server with each number of clients, and run the engine at that batch size, once a round."""
    generator = random.Random(0)
    slots = [(server, clients) for server in (*addresses, ENGINE) for clients in CLIENTS]
    runs: Runs = {slot: [] for slot in slots}
    for number in range(rounds + 1):  # the first does not count
        for server, clients in generator.sample(slots, len(slots)):
            if server == ENGINE:
                found = bare_rows_per_s(engine, batch=clients, seconds=seconds)
            else:
                found = closed(addresses[server], bodies, clients=clients, seconds=seconds if number else 1)
            if number:
                runs[server, clients].append(found)
    return runs


def figures(runs: Runs, busy: Load | None) -> dict[str, float]:
    """Return every number by name; ratios are medians over rounds of the ratio within a round."""
    found: dict[str, float] = {}
    for (server, clients), loads in runs.items():
        named = "batch" if server == ENGINE else "clients"
        found[f"{server}, {clients} {named}, per second"] = statistics.median(load.per_s for load in loads)
        if server != ENGINE:
            found[f"{server}, {clients} clients, p50_ms"] = statistics.median(load.p50_ms for load in loads)
            found[f"{server}, {clients} clients, p99_ms"] = statistics.median(load.p99_ms for load in loads)
            found[f"{server}, {clients} clients, lost"] = sum(load.lost for load in loads)
        if server != OURS and clients > 1:
            pairs = zip(runs[OURS, clients], loads, strict=True)
            ratio = statistics.median(mine.per_s / other.per_s for mine, other in pairs)
            found[f"{OURS} / {server}, {clients} clients"] = ratio
    if (PLAIN, 1) in runs:
        pairs = zip(runs[OURS, 1], runs[PLAIN, 1], strict=True)
        found[f"p50 of {OURS} / {PLAIN}, 1 client"] = statistics.median(
            one.p50_ms / other.p50_ms for one, other in pairs
        )
    if busy:
        found["p99 / p50 at 80 % load"] = busy.p99_ms / busy.p50_ms
        found["lost at 80 % load"] = busy.lost
    return found


def tell(name: str, found: dict[str, object]) -> None:
    """Print one model's figures, and what became of the targets."""
    numbers = found["figures"]
    assert isinstance(numbers, dict)
    show([(name, ""), *((key, f"{value:.2f}") for key, value in numbers.items())])
    judged = [("target", "", "found", "")]
    for bounds, sign in ((TARGETS, ">="), (MOST, "<=")):
        for (subject, figure), bound in bounds.items():
            if subject == name and figure in numbers:
                value = numbers[figure]
                met = value >= bound if sign == ">=" else value <= bound
                judged.append((figure, f"{sign} {bound:g}", f"{value:.2f}", "met" if met else "not met"))
    show(judged)
    left = found["left_out"]
    assert isinstance(left, dict)
    for server, why in left.items():
        print(f"left out: {server}: {why}")


if __name__ == "__main__":
    try:
        main()
    except ToolchainError as error:
        sys.exit(f"{error}")
