"""The wall time of `toolchain sweep eval/sweep.toml`, and the overhead of a cell: its time outside `build` and `eval`.

A cell is one combination of the sweep's options. `python benchmarks/sweep.py` runs the 24 cells in a new folder, then
calls the sweep again, which finds all results there. It prints the wall time of both calls and the overhead per cell.
`--noise N` instead evaluates one cell N times, and prints how much its median latency and its throughput vary on this
machine. Compare that with TIME_NOISE in toolchain/report/costs.py.
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
    """Run the sweep into `folder` in a process of its own; return its record and its wall time in seconds."""
    start_s = time.monotonic()
    command = [sys.executable, "-m", "toolchain", "sweep", str(FILE), "-o", str(folder), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    return json.loads(done.stdout), time.monotonic() - start_s


def whole(folder: Path) -> None:
    """Run the whole sweep twice, and print the wall time of each call and the overhead per cell."""
    record, wall_s = swept(folder)
    runs = [cell["run"] for cell in record["cells"] if cell["run"]]
    commands_s = sum(run["seconds"] + (run["build_s"] or 0) for run in runs)
    again, again_s = swept(folder)
    states = [cell["state"] for cell in again["cells"]]
    print(f"{len(states)} cells, {states.count('done')} done: {wall_s:.0f} s")
    print(f"time in build and eval: {commands_s:.0f} s; overhead per cell: {(wall_s - commands_s) / len(states):.2f} s")
    print(f"second call, which finds all results: {again_s:.2f} s")


def noise(folder: Path, times: int) -> None:
    """Evaluate one cell `times` times; print largest / smallest of its median latencies, and of its throughputs."""
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
    parser.add_argument(
        "--noise", type=int, metavar="N", help="evaluate one cell N times, and print how much its times vary"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder of the results (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        its = args.output or Path(place) / "sweep"
        noise(its, args.noise) if args.noise else whole(its)
