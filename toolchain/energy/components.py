"""Components of a measurement, with their joules or the reason for none, and the conditions that it was made under.

The records of `eval`, `compare --energy` and `power` share them.
"""

from collections import Counter

from toolchain.meters import gpu_state
from toolchain.meters.energy import EnergyMeter, Window
from toolchain.meters.nvml import Device, Unavailable
from toolchain.meters.sources import BOARD, COMPONENTS, INTEGRAL, MEMORY, PACKAGE
from toolchain.records.energy import ComponentRecord, EnergyContext, GpuContext, GpuDescription

# A counter and integrated power that differ by more are flagged: each has been seen to be wrong.
DISAGREE = 0.05


def counted(device: str) -> tuple[str, ...]:
    """Return the components that a backend on this device uses. GPU memory is part of its board, so it is not one."""
    return tuple(name for name in COMPONENTS if name != MEMORY and (name != BOARD or device != "cpu"))


def device_component(device: str) -> str:
    """Return the component of the device itself, without which the energy of a backend on it is unknown."""
    return PACKAGE if device == "cpu" else BOARD


def lacking(device: str, meter: EnergyMeter) -> tuple[str, str] | None:
    """Return reason code and detail if the device's own component cannot be measured, else None."""
    own = device_component(device)
    return None if own in meter.components else meter.missing[own]


def absent(name: str, reason: str | None, detail: str | None, device: str) -> ComponentRecord:
    """Return the record of a component without joules, for a reason code and its text."""
    return {
        "joules": None,
        "method": "unavailable",
        "reason": reason,
        "detail": detail,
        "counted": name in counted(device),
        "devices": [],
    }


def component(name: str, windows: list[Window], meter: EnergyMeter, device: str) -> ComponentRecord:
    """Return the sum of a component over the windows in which it was measured, or the reason why there is none."""
    readings = {key: one for key, one in meter.readings.items() if key[0] == name}
    if not readings:
        reason, detail = meter.missing[name]
        return absent(name, reason, detail, device)
    first = next(iter(readings.values()))
    made: ComponentRecord = {
        "joules": None,
        "method": first.source.method,
        "reason": None,
        "detail": f"not of all its devices: {meter.missing[name][1]}" if name in meter.missing else None,
        "counted": name in counted(device),
        "part_of": BOARD if name == MEMORY else None,
        "tick_ms": first.tick_s and 1e3 * first.tick_s,
        "devices": [],
    }
    whole = [(window, joules) for window in windows if (joules := window.component_j(name)) is not None]
    if not whole:
        reasons = Counter(window.reason(name) for window in windows)
        made["method"] = "unavailable"
        made["reason"] = reasons.most_common(1)[0][0] if reasons else "no_window"
        return made
    made["joules"] = total = sum(joules for _, joules in whole)
    made["mean_power_w"] = total / sum(window.seconds for window, _ in whole)
    made["devices"] = [{"device": key[1], "joules": sum(window.joules[key] for window, _ in whole)} for key in readings]
    if name == BOARD:
        _cross_check(made, [window for window, _ in whole])
    return made


def _cross_check(board: ComponentRecord, windows: list[Window]) -> None:
    """Add the peak power, and the counter's joules over integrated power where a board has both."""
    pairs = [(window.joules[BOARD, uuid], joules) for window in windows for uuid, joules in window.integral_j.items()]
    board["integral_j"] = board["counter_to_integral"] = None
    board["peak_power_w"] = max((sum(window.peak_w.values()) for window in windows if window.peak_w), default=None)
    if board["method"] != INTEGRAL and pairs:
        counters, integrals = map(sum, zip(*pairs, strict=True))
        board["integral_j"], board["counter_to_integral"] = integrals, counters / integrals


def context(meter: EnergyMeter) -> EnergyContext:
    """Return limits, clocks, temperatures and other users of the GPUs, over all readings of the meter."""
    return {"gpus": [_gpu(gpu, [state for _, state in meter.states[gpu.uuid]]) for gpu in meter.inventory.gpus]}


def _gpu(gpu: Device, states: list[gpu_state.State]) -> GpuContext:
    found: GpuDescription
    try:
        found, others = gpu_state.describe(gpu), gpu_state.other_processes(gpu)
    except Unavailable as why:
        found, others = {"name": gpu.name, "uuid": gpu.uuid, "reason": why.reason}, None
    return {**found, **gpu_state.summarise(states), "other_processes": others}


def flags(components: dict[str, ComponentRecord], context: EnergyContext) -> list[str]:
    """Return the remarks, in words, that a reader needs before believing the components' figures."""
    found = []
    board = components[BOARD]
    ratio = board.get("counter_to_integral")
    if ratio and board["joules"] and abs(ratio - 1) > DISAGREE + board.get("edge_error_j", 0.0) / board["joules"]:
        found.append(f"the energy counter says {ratio:.2f} times what integrated power says")
    for gpu in context["gpus"]:
        if gpu["other_processes"]:
            found.append(f"{len(gpu['other_processes'])} other processes on {gpu['name']}: its energy includes theirs")
        found += [
            f"{gpu['name']} had lower clocks ({cause.replace('_', ' ')}) in {share:.0%} of the samples"
            for cause, share in gpu["throttled"].items()
            if share
        ]
    if any(name.startswith("cpu") and one["method"] != "unavailable" for name, one in components.items()):
        found.append("processor and memory energy are the whole machine's")
    return found
