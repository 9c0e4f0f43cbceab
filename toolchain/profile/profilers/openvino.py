"""Profile OpenVINO with its own profiler; a kernel gets its place from the ONNX nodes that it was made from."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain import graph
from toolchain.base.tensors import Batch
from toolchain.profile.groups import NOWHERE, Place, place_nodes
from toolchain.profile.profilers import ProfiledRuntime
from toolchain.profile.spans import Span, end_to_end
from toolchain.runtimes.device import choose_device
from toolchain.runtimes.openvino import compile_graph, run_request
from toolchain.runtimes.openvino_kernels import kernels_of


@contextmanager
def profile_openvino(model: Path, *, device: str = "auto", precision: str = "fp32") -> Iterator[ProfiledRuntime]:
    """Yield a profiled runtime of an ONNX graph; `precision` has no effect, because the graph has its own.

    Raises:
        InputError: the graph cannot be loaded.
        MachineError: OpenVINO is not installed, or `device` is not the CPU.
    """
    choose_device(device, cuda=False)
    compiled = compile_graph(model, profile=True)
    request, places = compiled.create_infer_request(), place_kernels(compiled, place_nodes(graph.load(model)))
    calls: list[list[Span]] = []

    def infer(batch: Batch) -> NDArray[np.float32]:
        logits = run_request(request, model, batch)
        calls.append(_spans(request.profiling_info, places))
        return logits

    yield ProfiledRuntime(infer, lambda: calls, "openvino_kernels")


def place_kernels(compiled: Any, places: Mapping[str, Place]) -> dict[str, Place]:
    """Return name -> place of a compiled model's kernels; `places` has the places of the ONNX nodes.

    A kernel that was made from several nodes has the place of the first. A kernel that OpenVINO added prepares the
    input of another kernel, so it has the place of a kernel that reads its output, or else of the previous kernel.
    """
    found: dict[str, Place] = {}
    kernels, before = list(kernels_of(compiled)), NOWHERE
    for one in reversed(kernels):
        known = [places[name] for name in one.made_from if name in places]
        known += [found[name] for name in one.readers if found.get(name, NOWHERE) != NOWHERE]
        found[one.name] = next(iter(known), NOWHERE)
    for one in kernels:
        before = found[one.name] = before if found[one.name] == NOWHERE else found[one.name]
    return found


def _spans(kernels: Any, places: Mapping[str, Place]) -> list[Span]:
    """Return the spans of a call's kernels, one after the other, because OpenVINO does not report when each began."""
    ran = [one for one in kernels if one.real_time]
    return end_to_end(
        (one.node_name, places.get(one.node_name, NOWHERE), one.real_time / timedelta(microseconds=1)) for one in ran
    )
