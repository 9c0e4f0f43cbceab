"""Build the records of a measurement's components, such as GPU board and CPU package, and of the GPUs' conditions.

The records of `eval`, `compare --energy` and `power` share them. A component has its joules, or the reason why it was
not measured.
"""

from collections import Counter

from toolchain.meters import gpu_state
from toolchain.meters.energy import EnergyMeter, Window
from toolchain.meters.nvml import Device, Unavailable
from toolchain.meters.sources import BOARD, COMPONENTS, INTEGRAL, MEMORY, PACKAGE
from toolchain.records.energy import ComponentRecord, EnergyContext, GpuContext, GpuDescription

# Largest accepted relative difference between a counter and integrated power. A larger one is flagged: either may be
# wrong.
DISAGREE = 0.05


def counted(device: str) -> tuple[str, ...]:
    """Return the components whose joules add up to the total of a backend on this device.

    GPU memory is not among them, because its energy is part of that of the GPU board.
    """
    return tuple(name for name in COMPONENTS if name != MEMORY and (name != BOARD or device != "cpu"))


def device_component(device: str) -> str:
    """Return the component that must be measured to know the energy of a backend: CPU package or GPU board."""
    return PACKAGE if device == "cpu" else BOARD


def lacking(device: str, meter: EnergyMeter) -> tuple[str, str] | None:
    """Return (reason code, detail) if the component of the device itself cannot be measured, else None."""
    own = device_component(device)
    return None if own in meter.components else meter.missing[own]


def absent(name: str, reason: str | None, detail: str | None, device: str) -> ComponentRecord:
    """Return the record of a component without joules, with a reason code and its details in words."""
    return {
        "joules": None,
        "method": "unavailable",
        "reason": reason,
        "detail": detail,
        "counted": name in counted(device),
        "devices": [],
    }


def component(name: str, windows: list[Window], meter: EnergyMeter, device: str) -> ComponentRecord:
    """Return the record of a component: its joules, summed over the windows that measured it, or why there are none."""
    readings = {key: one for key, one in meter.readings.items() if key[0] == name}
    if not readings:
        reason, detail = meter.missing[name]
        return absent(name, reason, detail, device)
    first = next(iter(readings.values()))
    made: ComponentRecord = {
        "joules": None,
        "method": first.source.method,
        "reason": None,
        "detail": f"not all its devices could be measured: {meter.missing[name][1]}" if name in meter.missing else None,
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
    """Add to a board's record its peak power and, if it has both a counter and a sensor, the ratio of their joules."""
    pairs = [(window.joules[BOARD, uuid], joules) for window in windows for uuid, joules in window.integral_j.items()]
    board["integral_j"] = board["counter_to_integral"] = None
    board["peak_power_w"] = max((sum(window.peak_w.values()) for window in windows if window.peak_w), default=None)
    if board["method"] != INTEGRAL and pairs:
        counters, integrals = map(sum, zip(*pairs, strict=True))
        board["integral_j"], board["counter_to_integral"] = integrals, counters / integrals


def context(meter: EnergyMeter) -> EnergyContext:
    """Return power limits, clocks, temperatures and other processes of each GPU during the measurement."""
    return {"gpus": [_gpu(gpu, [state for _, state in meter.states[gpu.uuid]]) for gpu in meter.inventory.gpus]}


def _gpu(gpu: Device, states: list[gpu_state.State]) -> GpuContext:
    found: GpuDescription
    try:
        found, others = gpu_state.describe(gpu), gpu_state.other_processes(gpu)
    except Unavailable as why:
        found, others = {"name": gpu.name, "uuid": gpu.uuid, "reason": why.reason}, None
    return {**found, **gpu_state.summarise(states), "other_processes": others}


def flags(components: dict[str, ComponentRecord], context: EnergyContext) -> list[str]:
    """Return remarks, in words, on whether the components' figures can be trusted."""
    found = []
    board = components[BOARD]
    ratio = board.get("counter_to_integral")
    if ratio and board["joules"] and abs(ratio - 1) > DISAGREE + board.get("edge_error_j", 0.0) / board["joules"]:
        found.append(f"the energy counter reports {ratio:.2f} times the energy of the integrated power readings")
    for gpu in context["gpus"]:
        if gpu["other_processes"]:
            found.append(f"{len(gpu['other_processes'])} other processes on {gpu['name']}: its energy includes theirs")
        found += [
            f"{gpu['name']} had lower clocks ({cause.replace('_', ' ')}) in {share:.0%} of the samples"
            for cause, share in gpu["throttled"].items()
            if share
        ]
    if any(name.startswith("cpu") and one["method"] != "unavailable" for name, one in components.items()):
        found.append("processor and memory energy include all processes on this machine")
    return found
