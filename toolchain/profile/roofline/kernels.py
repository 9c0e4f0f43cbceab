"""Lower bounds for the time of compiled kernels on a GPU, from its data sheet.

A kernel takes at least the time of its memory traffic and of its operations at the GPU's peaks, whichever is longer,
and kernels run one after the other. This bound is larger than that of a graph's work (work.py), which assumes that all
activations stay on the chip.
"""

from collections.abc import Iterable
from typing import Literal

from toolchain.engine.kernels import Kernel
from toolchain.errors import InputError
from toolchain.profile.roofline.ceiling import Ceiling
from toolchain.records.kernels import BoundedKernel, KernelGroup

# Precision -> a faster precision in which tensor cores may run its GEMMs. The lower bound of a kernel's time must hold
# for the faster precision, too.
RUNS_AS = {"fp32": "tf32"}


def bounded(kernel: Kernel, ceiling: Ceiling, *, part: str = "other", layer: int | None = None) -> BoundedKernel:
    """Return the record of a kernel with the shortest time that it can take at a ceiling.

    Raises:
        InputError: the sizes of its tensors are unknown, or the ceiling lacks its precision.
    """
    record = kernel.to_json()
    moved, operations, precision = record["bytes"], record["operations"], record["precision"] or "fp16"
    if moved is None or operations is None:
        raise InputError(
            f"{kernel.name}: TensorRT-RTX lists no tensor sizes for this kernel. Report this as a bug, with the graph."
        )
    flop = {RUNS_AS.get(precision, precision): float(operations)} if operations else {}
    if missing := ceiling.lacks(flop):
        raise InputError(f"{kernel.name}: the GPU has no peak for {missing[0]}. Choose another target.")
    compute_s, memory_s = ceiling.compute_s(flop), ceiling.memory_s(moved)
    return {
        **record,
        "part": part,
        "layer": layer,
        "us": 1e6 * max(compute_s, memory_s),
        "bound": "compute" if compute_s >= memory_s else "memory",
    }


def grouped(kernels: Iterable[BoundedKernel]) -> list[KernelGroup]:
    """Return the totals of the kernels of each part and kind, in the order in which the first kernel of each runs."""
    found: dict[tuple[str, str], list[BoundedKernel]] = {}
    for kernel in kernels:
        found.setdefault((kernel["part"], kernel["kind"]), []).append(kernel)
    return [
        {
            "part": part,
            "kind": members[0]["kind"],
            "kernels": len(members),
            "bytes": sum(one["bytes"] or 0 for one in members),
            "operations": sum(one["operations"] or 0 for one in members),
            "us": sum(one["us"] for one in members),
            "bound": main_bound(members),
        }
        for (part, _), members in found.items()
    ]


def main_bound(kernels: list[BoundedKernel]) -> Literal["compute", "memory"]:
    """Return whether operations or memory traffic bound the larger part of the kernels' time."""
    computing, moving = (sum(one["us"] for one in kernels if one["bound"] == bound) for bound in ("compute", "memory"))
    return "compute" if computing > moving else "memory"
