"""How much measuring energy slows inference down, and how much of a CPU core the thread that polls NVML uses.

Throughput with and without the measurement is compared in interleaved intervals. On a machine without an NVIDIA driver,
the scripted NVML of tests/nvml takes its place; its calls take less time than a driver's.
"""

import contextlib
import ctypes
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contenders import BUDGET
from scipy.stats import bootstrap
from workload import ROOT, Workload

from toolchain.base.tensors import Infer
from toolchain.checkpoint.tokenize import budget_batches
from toolchain.energy.load import Piece, Progress, drive, pieces, shuffled
from toolchain.meters.energy import EnergyMeter, open_meter
from toolchain.meters.nvml import Unavailable, open_nvml
from toolchain.runtimes import open_runtime

SCENARIO = "device 0 6 GPU-11111111-aaaa Tesla T4\npower 0 0 68000\n"
LEAD_IN_S, INTERVAL_S = 2.0, 0.5
ROWS, PAIRS = 512, 130


@contextlib.contextmanager
def open_any_meter() -> Iterator[tuple[EnergyMeter, str]]:
    """Yield an open energy meter and the name of its NVML, which is `scripted NVML` on a machine without a driver."""
    try:
        with open_nvml():
            name = "NVML"
    except Unavailable:
        name = "scripted NVML"
        load_scripted()
    with open_meter() as meter:
        yield meter, name


def load_scripted() -> None:
    """Compile the scripted NVML, and load it into this process under the file name that nvidia-ml-py looks for."""
    with tempfile.TemporaryDirectory() as folder:
        made, scenario = Path(folder) / "libnvidia-ml.so.1", Path(folder) / "scenario"
        scenario.write_text(SCENARIO)
        source = ROOT / "tests/nvml/fakenvml.c"
        flags = ["-O2", "-shared", "-fPIC", f"-Wl,-soname,{made.name}"]
        subprocess.run(["cc", *flags, "-o", str(made), str(source)], check=True)
        assert ctypes.CDLL(str(made), mode=ctypes.RTLD_GLOBAL).fakenvml_load(str(scenario).encode()) == 0


def metering_cost(workload: Workload) -> dict[str, float]:
    """Return the figures of `compare` for the INT8 graph in ONNX Runtime on the CPU.

    If the scripted NVML is loaded, it stays loaded: from then on this process appears to have a GPU.
    """
    tokens = workload.resolved.encode(workload.rows("validation").texts[:ROWS])
    with open_runtime("ort", workload.bundle / "model.int8.cpu.onnx", device="cpu") as infer:
        work = pieces(tokens, budget_batches(tokens.lengths, max_slots=BUDGET))
        return compare(infer, work[len(work) // 2 :][:1], pairs=PAIRS)  # one batch, so that all calls are alike


def compare(infer: Infer, work: list[Piece], *, pairs: int) -> dict[str, float]:
    """Return the ratio of rows/s with polling to rows/s without, its standard error, and the CPU use of the poller.

    `work` runs without interruption while `pairs` pairs of intervals pass, one with and one without polling, in random
    order. The ratio is the median over the pairs. The CPU use is the polling thread's CPU time over wall time, as a
    fraction of one core.
    """
    done: dict[bool, list[float]] = {True: [], False: []}
    shares: list[float] = []
    with open_any_meter() as (meter, name):

        def alternate(progress: Progress) -> None:
            meter.wait(LEAD_IN_S)
            order = random.Random(0)
            for _ in range(pairs):
                for polling in order.sample([True, False], 2):
                    opened_s, begun_s = meter.clock(), time.thread_time()
                    (meter.wait if polling else time.sleep)(INTERVAL_S)
                    closed_s = meter.clock()
                    if polling:
                        shares.append((time.thread_time() - begun_s) / (closed_s - opened_s))
                    done[polling].append(progress.between(opened_s, closed_s).rows / (closed_s - opened_s))

        drive(infer, shuffled(work, seed=0), alternate)
    ratios = [one / other for one, other in zip(done[True], done[False], strict=True)]
    return {
        f"with energy metering / without, rows per second ({name})": statistics.median(ratios),
        "  its standard error": float(bootstrap((ratios,), np.median, rng=0).standard_error),
        f"polling thread, share of a core ({name})": statistics.median(shares),
    }
