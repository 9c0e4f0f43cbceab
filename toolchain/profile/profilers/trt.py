"""Profile TensorRT with its own profiler; a layer gets its place from the ONNX nodes that the inspector names."""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from toolchain import graph
from toolchain.base.tensors import Batch
from toolchain.engine.plan import LAYERS, read_record
from toolchain.errors import InputError
from toolchain.graph.encoder import parse_encoder
from toolchain.graph.plugin_graph import FP16, INT8, packed_graph
from toolchain.profile.groups import NOWHERE, Place, place_layers
from toolchain.profile.profilers import ProfiledRuntime
from toolchain.profile.spans import Span, end_to_end
from toolchain.runtimes.trt import DOWNLOAD, UPLOAD, open_trt


@contextmanager
def profile_trt(
    plan: Path, *, device: str = "cuda:0", precision: str = "fp32", pinned: bool = False, backend: str = "trt"
) -> Iterator[ProfiledRuntime]:
    """Yield a profiled runtime of a plan in a bundle. It uses no CUDA graphs, whose layers TensorRT cannot time.

    The arguments are those of `open_trt`.

    Raises:
        InputError: the plan, its record or the list of its layers is broken.
        MachineError: TensorRT or a GPU is missing, or the plan was built for another version or GPU.
    """
    places = plan_places(plan) | dict.fromkeys((UPLOAD, DOWNLOAD), Place("copy"))
    layers: list[tuple[str, Place, float]] = []
    calls: list[list[Span]] = []

    def report(name: str, ms: float) -> None:
        layers.append((name, places.get(name, NOWHERE), 1000 * ms))

    with open_trt(plan, device=device, precision=precision, report=report, pinned=pinned, backend=backend) as run:

        def infer(batch: Batch) -> NDArray[np.float32]:
            logits = run(batch)
            calls.append(end_to_end(layers))
            layers.clear()
            return logits

        yield ProfiledRuntime(infer, lambda: calls, "tensorrt_profiler")


# The profiler of the backend trt-rtx.
profile_rtx = functools.partial(profile_trt, backend="trt-rtx")


def plan_places(plan: Path) -> dict[str, Place]:
    """Return name -> place of a plan's layers, from the list of layers beside the plan and the graph it was built from.

    Raises:
        InputError: the list of layers is missing or broken.
    """
    file = plan.parent / LAYERS
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({type(error).__name__}). Build the plan again.") from None
    listed = content.get("Layers", [])
    layers = [layer if isinstance(layer, dict) else {"Name": layer} for layer in listed]
    for kernel in (kernel for profile in content.get("profiles", []) for kernel in profile):  # of TensorRT-RTX
        nodes = "".join(f"[ONNX Layer: {node}]" for node in kernel["nodes"])
        layers.append({"Name": kernel["name"], "Metadata": nodes})
    return place_layers(layers, _graph_of(plan))


def _graph_of(plan: Path) -> ir.Model:
    """Return the graph that a plan was built from. For an engine without padding it is not saved, but made again."""
    record = read_record(plan)
    model = graph.load(plan.parent.parent.parent / record["graph"]["file"])
    if record["layout"] != "packed":
        return model
    integer = record["precision"] == "int8"
    return packed_graph(
        parse_encoder(model),
        dtype="float32" if integer else "float16",
        attention_type=INT8 if integer else FP16,
        norm_type=FP16,
        versions=record["plugins"],
    )
