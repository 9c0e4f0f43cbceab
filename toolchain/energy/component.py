"""One component of an energy record: joules and how they were measured, or null and why."""

from collections import Counter
from typing import Any

from toolchain.meters.energy import EnergyMeter, Window
from toolchain.meters.sources import BOARD, COMPONENTS, INTEGRAL, MEMORY

Block = dict[str, Any]


def counted(device: str) -> tuple[str, ...]:
    """Return the components that a backend on this device uses; GPU memory is part of its board."""
    return tuple(name for name in COMPONENTS if name != MEMORY and (name != BOARD or device != "cpu"))


def absent(name: str, reason: str, detail: str | None, device: str) -> Block:
    """Return the record of a component without figures; `reason` is a code, `detail` says it in words."""
    return {
        "joules": None,
        "method": "unavailable",
        "reason": reason,
        "detail": detail,
        "counted": name in counted(device),
        "devices": [],
    }


def component(name: str, windows: list[Window], meter: EnergyMeter, device: str) -> Block:
    """Return a component's sum over the windows in which it was measured, and how; or the reason for none."""
    tracks = {key: track for key, track in meter.tracks.items() if key[0] == name}
    if not tracks:
        reason, detail = meter.missing[name]
        return absent(name, reason, detail, device)
    lacking = f"not of all its devices: {meter.missing[name][1]}" if name in meter.missing else None
    whole = [window for window in windows if window.component_j(name) is not None]
    first = next(iter(tracks.values()))
    made: Block = {
        "joules": None,
        "method": first.source.method,
        "reason": None,
        "detail": lacking,
        "counted": name in counted(device),
        "part_of": BOARD if name == MEMORY else None,
        "tick_ms": first.tick_s and 1e3 * first.tick_s,
        "devices": [],
    }
    if not whole:
        reasons = Counter(window.reason(name) for window in windows)
        return made | {"method": "unavailable", "reason": reasons.most_common(1)[0][0] if reasons else "no_window"}
    seconds = sum(window.seconds for window in whole)
    made["joules"] = sum(window.component_j(name) or 0.0 for window in whole)
    made["mean_power_w"] = made["joules"] / seconds
    made["devices"] = [{"device": key[1], "joules": sum(window.joules[key] for window in whole)} for key in tracks]
    if name == BOARD:
        made |= _cross_check(whole, first.source.method)
    return made


def _cross_check(windows: list[Window], method: str) -> Block:
    """Return the counter's joules over the integral's, of windows and boards that have both, and the highest power."""
    pairs = [(window.joules[BOARD, uuid], joules) for window in windows for uuid, joules in window.integral_j.items()]
    peak = max((sum(window.peak_w.values()) for window in windows if window.peak_w), default=None)
    if method == INTEGRAL or not pairs:
        return {"integral_j": None, "counter_to_integral": None, "peak_power_w": peak}
    counters, integrals = map(sum, zip(*pairs, strict=True))
    return {"integral_j": integrals, "counter_to_integral": counters / integrals, "peak_power_w": peak}
