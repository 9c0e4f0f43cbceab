"""The peak memory of a calibration on many rows, as a ratio to that of a calibration on few rows.

Each calibration runs in a process of its own: `python memory.py TASK ROWS` prints its peak memory in MB.
"""

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
    """Return the peak memory of calibrating MANY rows divided by that of calibrating FEW rows."""
    command = [sys.executable, __file__, workload.resolved.task.name]
    few, many = (float(subprocess.check_output([*command, str(rows)], text=True)) for rows in (FEW, MANY))
    return {f"calibrate {MANY} / {FEW} rows, peak memory": many / few}


def calibration_peak_mb(task: str, rows: int) -> float:
    """Calibrate `rows` train rows by entropy in this process; return the peak resident memory in MB (10^6 bytes).

    The meter starts after the model and the rows are loaded.
    """
    with tempfile.TemporaryDirectory() as folder:
        workload = make(recipe(demo=task == "demo"), Path(folder), steps=("export",))
        tokens = workload.resolved.encode(workload.rows("train").sample(rows, seed=0).texts)
        meter = MemoryMeter()
        meter.start()
        calibrate(graph.load(workload.bundle / "model.onnx"), tokens, method="entropy")
        return float(meter.stop()["host"] or 0)


if __name__ == "__main__":
    print(calibration_peak_mb(sys.argv[1], int(sys.argv[2])))
