"""Measure how NVML behaves on this GPU, and write the results to OUT.json.

It measures how often the energy counter and each power reading change, how long a read takes, and how the counter's
mean power compares with the mean of the power readings.

    python3 nvml_facts.py OUT.json [--seconds 8]     prints the main figures

It needs nvidia-ml-py, and PyTorch to put a load on the GPU. It changes no setting of the GPU.
"""

import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pynvml as nvml

FIELDS = {"instant": nvml.NVML_FI_DEV_POWER_INSTANT, "average": nvml.NVML_FI_DEV_POWER_AVERAGE}
SCOPES = {"gpu": 0, "module": 1, "memory": 2}
# NVML functions whose results are recorded unchanged. If one fails, its error is recorded.
QUERIES = (
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetCurrentEccMode",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetPerformanceState",
    "nvmlDeviceGetCurrentClocksEventReasons",
)
PRINTED = ("idle", "idle_with_context", "loaded", "idle_after", "counter_idle", "counter_loaded")

Read = Callable[[], int | None]


def field_mw(handle: Any, field: int, scope: int) -> int | None:
    """Return the power in one of FIELDS for one of SCOPES, in milliwatts; None if NVML does not report it."""
    value = nvml.nvmlDeviceGetFieldValues(handle, [(field, scope)])[0]
    return None if value.nvmlReturn else int(value.value.uiVal)


def changes(read: Read, seconds: float) -> dict[str, float]:
    """Call `read` as often as possible for `seconds`; return how long a call takes and how often its value changes.

    The keys are the microseconds per call, the number of changes and, if there are enough changes, the milliseconds
    between two changes: median, smallest and largest.
    """
    times, values, reads, start = [], [], 0, time.perf_counter()
    last = read()
    while (now := time.perf_counter()) - start < seconds:
        value, reads = read(), reads + 1
        if value != last:
            times.append(now - start)
            values.append(value)
            last = value
    gaps = [1000 * (b - a) for a, b in itertools.pairwise(times)]
    found = {"read_us": 1e6 * seconds / max(1, reads), "changes": len(times)}
    if len(gaps) > 2:
        found |= {
            "period_ms_median": statistics.median(gaps),
            "period_ms_least": min(gaps),
            "period_ms_most": max(gaps),
        }
    return found


def compare(handle: Any, seconds: float, sources: dict[str, Read]) -> dict[str, float | None]:
    """Return the mean power in watts over the same time, from the energy counter and from each power reading.

    The power readings in `sources` are taken every 5 ms. `counter_over_NAME` is the counter's mean power divided by
    that of the power reading NAME.
    """
    sums: dict[str, list[int]] = {name: [] for name in sources}

    def edge() -> tuple[float, int]:
        first = nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        while (now := nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) == first and time.perf_counter() < limit:
            pass
        return time.perf_counter(), now

    limit = time.perf_counter() + seconds + 5
    start_s, start_mj = edge()
    while time.perf_counter() - start_s < seconds:
        for name, read in sources.items():
            if (value := read()) is not None:
                sums[name].append(value)
        time.sleep(0.005)
    end_s, end_mj = edge()
    found = {"seconds": end_s - start_s, "counter_w": (end_mj - start_mj) / 1000 / (end_s - start_s)}
    for name, values in sums.items():
        if values:
            found[f"{name}_w"] = statistics.fmean(values) / 1000
            found[f"counter_over_{name}"] = found["counter_w"] / found[f"{name}_w"] if found[f"{name}_w"] else None
    return found


def load() -> Callable[[], None] | None:
    """Return a function that keeps the GPU busy for about 10 ms per call; None without PyTorch or a GPU."""
    try:
        import torch

        a = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
        b = torch.empty_like(a)
    except Exception as error:
        print("The GPU is measured without a load, because PyTorch cannot use it:", error)
        return None

    def work() -> None:
        for _ in range(8):
            torch.matmul(a, a, out=b)
        torch.cuda.synchronize()

    return work


def queries(handle: Any) -> dict[str, Any]:
    """Return the GPU's name, its driver version, its power fields in mW, and the result or error of each of QUERIES."""
    answers: dict[str, Any] = {}
    for scope, number in SCOPES.items():
        for name, field in FIELDS.items():
            answers[f"{name}_{scope}_mw"] = field_mw(handle, field, number)
    for name in QUERIES:
        try:
            answers[name] = getattr(nvml, name)(handle)
        except Exception as error:
            answers[name] = f"{type(error).__name__}: {error}"
    driver, card = nvml.nvmlSystemGetDriverVersion(), nvml.nvmlDeviceGetName(handle)
    return {"driver": str(driver), "name": str(card), "answers": answers}


def loaded(handle: Any, seconds: float, sources: dict[str, Read], work: Callable[[], None]) -> dict[str, Any]:
    """Run `work` over and over in a thread; return the figures under this load.

    `fall` has the power readings of the second that begins when the load is stopped. It shows how fast they fall.
    """
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            work()

    def memory() -> int | None:
        return field_mw(handle, FIELDS["average"], SCOPES["memory"])

    thread = threading.Thread(target=busy)
    thread.start()
    time.sleep(2)
    facts: dict[str, Any] = {"counter_loaded": changes(lambda: energy_mj(handle), 2.0)}
    for name, read in sources.items():
        facts[f"{name}_loaded"] = changes(read, 2.0)
    more = {} if memory() is None else {"memory_average": memory}
    facts["loaded"] = compare(handle, seconds, sources | more)
    rows, until = [], time.perf_counter() + 1.0
    stop.set()
    thread.join()
    while time.perf_counter() < until:
        rows.append([round(time.perf_counter() - until + 1.0, 4), *(read() for read in sources.values())])
        time.sleep(0.01)
    facts["fall"] = {"columns": ["s", *sources], "rows": rows}
    return facts


def energy_mj(handle: Any) -> int:
    """Return the GPU's energy counter in millijoules."""
    return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def main(out: str, seconds: float) -> None:
    """Measure the GPU idle, under load and idle again, about `seconds` each; write the results to `out`."""
    nvml.nvmlInit()
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    facts = queries(handle)
    known: dict[str, Read] = {
        "instant": lambda: field_mw(handle, FIELDS["instant"], 0),
        "average": lambda: field_mw(handle, FIELDS["average"], 0),
        "usage": lambda: nvml.nvmlDeviceGetPowerUsage(handle),
    }
    sources = {name: read for name, read in known.items() if read() is not None}
    facts["counter_idle"] = changes(lambda: energy_mj(handle), min(3.0, seconds))
    facts["idle"] = compare(handle, seconds, sources)
    if work := load():
        facts["idle_with_context"] = compare(handle, seconds, sources)
        facts |= loaded(handle, seconds, sources, work)
        facts["idle_after"] = compare(handle, min(5.0, seconds), sources)
    with open(out, "w") as file:
        json.dump(facts, file, indent=1, default=str)
    for key in filter(facts.get, PRINTED):
        print(key, {name: round(value, 3) if isinstance(value, float) else value for name, value in facts[key].items()})


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[3]) if len(sys.argv) > 3 else 8.0)
