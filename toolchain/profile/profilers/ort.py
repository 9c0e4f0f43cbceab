"""Profile ONNX Runtime with its own profiler; the places of nodes are found in the graph that it has optimised."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain import graph
from toolchain.base.tensors import Batch
from toolchain.profile.groups import NOWHERE, Place, place_nodes
from toolchain.profile.profilers import ProfiledRuntime
from toolchain.profile.spans import US, Span
from toolchain.runtimes.ort import cannot_run, open_session

# An event of ONNX Runtime's profile, whose keys depend on its type.
Event = dict[str, Any]

# Suffix of the event that times a node. The event's name is the node's name with this suffix.
SUFFIX = "_kernel_time"


@contextmanager
def profile_ort(model: Path, *, device: str = "auto", precision: str = "fp32") -> Iterator[ProfiledRuntime]:
    """Yield a profiled runtime of an ONNX graph; `precision` has no effect, because the graph has its own.

    On a GPU, a node returns as soon as its kernels are launched. Only an ONNX Runtime that was built with its CUDA
    profiler times the kernels themselves; otherwise the clock is "launches".

    Raises:
        InputError: the graph cannot be loaded.
        MachineError: the execution provider for `device` is missing or fell back.
    """
    with tempfile.TemporaryDirectory() as folder:
        rewritten = Path(folder) / "optimised.onnx"
        opened = [open_session(model, device=device, optimised=rewritten, profile=Path(folder) / "profile")]
        names = {entry.name for entry in opened[0].get_inputs()}
        places = place_nodes(graph.load(rewritten))
        walls: list[float] = []

        def infer(batch: Batch) -> NDArray[np.float32]:
            feeds = {name: array for name, array in batch.items() if name in names}
            start = time.perf_counter()
            try:
                logits = np.asarray(opened[0].run(["logits"], feeds)[0], np.float32)
            except Exception as error:
                raise cannot_run(model, error) from error
            walls.append((time.perf_counter() - start) * US)
            return logits

        def spans() -> list[list[Span]]:
            events = json.loads(Path(opened[0].end_profiling()).read_text(encoding="utf-8"))
            return calls_of(events, walls, places)

        kernels = "CUDAExecutionProvider" not in opened[0].get_providers()
        try:
            yield ProfiledRuntime(infer, spans, "onnxruntime_kernels" if kernels else "launches")
        finally:
            opened.clear()


def calls_of(events: list[Event], walls: list[float], places: dict[str, Place]) -> list[list[Span]]:
    """Return, for each call, the spans of its nodes or kernels.

    `events` are those of the profiler, and `walls` has the duration of each call in us on the host's clock. The
    profiler has a clock of its own, so its run of the model is put into the middle of the call.
    """
    runs = sorted((event for event in events if event.get("name") == "model_run"), key=_start)
    kernels = [event for event in events if event.get("cat") == "Kernel"]
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(SUFFIX)]
    timed = sorted(kernels or nodes, key=_start)
    calls = []
    for run, wall in zip(runs, walls, strict=True):
        begin, end = run["ts"], run["ts"] + run["dur"]
        offset = max(0.0, wall - run["dur"]) / 2 - begin
        inside = [event for event in timed if begin <= event["ts"] <= end]
        calls.append([_span(event, offset, places) for event in inside])
    return calls


def _start(event: Event) -> float:
    return float(event["ts"])


def _span(event: Event, offset: float, places: dict[str, Place]) -> Span:
    name = str(event["args"].get("parent_name") or event["name"]).removesuffix(SUFFIX)
    return Span(name, places.get(name, NOWHERE), event["ts"] + offset, float(event["dur"]))
