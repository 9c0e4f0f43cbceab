"""The peak memory of calibrating many rows compared with few. Each runs in a fresh process: this file, TASK, ROWS."""

import subprocess
import sys
import tempfile
from pathlib import Path

from workload import Workload, make, recipe

from toolchain import graph
from toolchain.int8.calibrate import calibrate
from toolchain.meters.memory import MemoryMeter

FEW, MANY = 256, 2048


def memory_cost(workload: Workload) -> dict[str, float]:
    """Return the ratio of the peaks of two processes."""
    command = [sys.executable, __file__, workload.resolved.task.name]
    few, many = (float(subprocess.check_output([*command, str(rows)], text=True)) for rows in (FEW, MANY))
    return {f"calibrate {MANY} / {FEW} rows, peak memory": many / few}


def calibration_peak_mb(task: str, rows: int) -> float:
    """Return the peak memory of calibrating `rows` rows in this process, in MB, from just before it."""
    with tempfile.TemporaryDirectory() as folder:
        workload = make(recipe(demo=task == "demo"), Path(folder), steps=("export",))
        tokens = workload.resolved.encode(workload.rows("train").sample(rows, seed=0).texts)
        meter = MemoryMeter()
        meter.start()
        calibrate(graph.load(workload.bundle / "model.onnx"), tokens, method="entropy")
        return float(meter.stop()["host"] or 0)


if __name__ == "__main__":
    print(calibration_peak_mb(sys.argv[1], int(sys.argv[2])))
