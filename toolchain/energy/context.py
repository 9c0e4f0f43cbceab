"""What energy was measured under, and what a reader must know of it before believing the figures."""

from toolchain.energy.component import Block
from toolchain.meters import gpu_state
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.nvml import Device, Unavailable
from toolchain.meters.sources import BOARD

DISAGREE = 0.05
"""Counter and integrated power that differ by more are flagged: both have been seen to be wrong."""


def context(meter: EnergyMeter) -> Block:
    """Return what the GPUs were measured under, over all readings of the meter."""
    return {"gpus": [_gpu(gpu, [state for _, state in meter.states[gpu.uuid]]) for gpu in meter.inventory.gpus]}


def _gpu(gpu: Device, states: list[gpu_state.State]) -> Block:
    try:
        fixed, others = gpu_state.describe(gpu), gpu_state.other_processes(gpu)
    except Unavailable as why:
        fixed, others = {"name": gpu.name, "uuid": gpu.uuid, "reason": why.reason}, None
    return {**fixed, **gpu_state.summarise(states), "other_processes": others}


def flags(components: Block, context: Block) -> list[str]:
    """Return in words what the components and their context are to be read with."""
    found = []
    board = components[BOARD]
    ratio = board.get("counter_to_integral")
    if ratio and abs(ratio - 1) > DISAGREE + board.get("edge_error_j", 0.0) / board["joules"]:
        found.append(f"the energy counter says {ratio:.2f} times what integrated power says")
    for gpu in context["gpus"]:
        if gpu["other_processes"]:
            found.append(f"{len(gpu['other_processes'])} other processes on {gpu['name']}: its energy is theirs too")
        found += [
            f"{gpu['name']} was held back ({why.replace('_', ' ')}) in {share:.0%} of the samples"
            for why, share in (gpu["throttled"] or {}).items()
            if share
        ]
    if any(name.startswith("cpu") and one["method"] != "unavailable" for name, one in components.items()):
        found.append("processor and memory energy are the whole machine's")
    return found
