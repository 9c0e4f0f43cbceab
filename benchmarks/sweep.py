"""The wall time of `toolchain sweep eval/sweep.toml`, and what each cell costs beyond its commands.

`python benchmarks/sweep.py` runs the 24 cells in a new folder, then the sweep again with nothing to do, and prints the
wall time of both and the overhead a cell. `--noise N` evaluates one cell N times and prints how far its median latency
and its throughput vary on this machine: compare it with TIME_NOISE of toolchain/report/costs.py.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from toolchain.records.sweep import SweepRecord

FILE = Path(__file__).parent.parent / "eval/sweep.toml"


def swept(folder: Path, *options: str) -> tuple[SweepRecord, float]:
    """Run the sweep in a process of its own; return its record and its wall time in seconds."""
    start_s = time.monotonic()
    command = [sys.executable, "-m", "toolchain", "sweep", str(FILE), "-o", str(folder), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    return json.loads(done.stdout), time.monotonic() - start_s


def whole(folder: Path) -> None:
    """Print the wall time of all cells and of a second call, and the overhead a cell."""
    record, wall_s = swept(folder)
    runs = [cell["run"] for cell in record["cells"] if cell["run"]]
    commands_s = sum(run["seconds"] + (run["build_s"] or 0) for run in runs)
    again, again_s = swept(folder)
    states = [cell["state"] for cell in again["cells"]]
    print(f"{len(states)} cells, {states.count('done')} done: {wall_s:.0f} s")
    print(f"commands: {commands_s:.0f} s; overhead a cell: {(wall_s - commands_s) / len(states):.2f} s")
    print(f"second call: {again_s:.2f} s")


def noise(folder: Path, times: int) -> None:
    """Print the largest over the smallest of the medians and throughputs of one cell, evaluated several times."""
    results = []
    for _ in range(times):
        record, _ = swept(folder, "--set", "max_length=64", "--only", "int8-ort*")
        (cell,) = [cell for cell in record["cells"] if cell["state"] == "done"]
        file = folder / str(cell["result"])
        results.append(json.loads(file.read_text()))
        file.unlink()
    for name, values in (
        ("median latency", [result["latency_ms"]["p50"] for result in results]),
        ("throughput", [result["throughput_per_s"] for result in results]),
    ):
        print(f"{name}: largest / smallest of {times}: {max(values) / min(values):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", type=int, metavar="N", help="evaluate one cell N times")
    parser.add_argument("-o", "--output", type=Path, help="folder of the results (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        its = args.output or Path(place) / "sweep"
        noise(its, args.noise) if args.noise else whole(its)
