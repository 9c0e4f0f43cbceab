"""Build the `energy` block of a result: figures over all accepted windows, each window, and how they were measured.

A value that was not measured is null, with a reason code beside it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import cast

from toolchain.energy.components import absent, component, context, counted, device_component, flags
from toolchain.energy.protocol import Idle, Protocol, Run, Trial
from toolchain.evaluation.statistics import bootstrap_mean_ci95
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.sources import BOARD, COMPONENTS
from toolchain.records.energy import (
    CarbonRecord,
    EnergyBlock,
    IdleRecord,
    NetEnergy,
    ProtocolRecord,
    Status,
    WarmUpRecord,
    WindowRecord,
)

NOT_REQUESTED, NOT_RUN = "not_requested", "not_run"

# Smallest number of windows for a confidence interval. Fewer windows show too little of their spread.
LEAST_WINDOWS = 5

# Relative error of a board's power sensor, which more windows do not reveal: usually 5 %, seldom 13 % (paper in
# protocol.py).
SENSOR = 0.05

# Largest relative difference of idle power before and after the load. With a larger difference, idle power is not
# subtracted.
DRIFT = 0.05

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Carbon:
    """The user's figures for electricity: grams of CO2 per kWh, and the power usage effectiveness of the site."""

    intensity_g_per_kwh: float
    pue: float = 1.0


def unavailable(reason: str | None, *, device: str, detail: str | None = None) -> EnergyBlock:
    """Return the energy block of a run that was not measured; `reason` is a code such as not_requested."""
    return {
        "status": "unavailable",
        "reason": reason,
        "detail": detail,
        "components": {name: absent(name, reason, detail, device) for name in COMPONENTS},
        "windows": [],
        "window_s": None,
        "inferences": None,
        "total_j": None,
        "per_inference_j": None,
        "per_token_j": None,
        "per_slot_j": None,
        "per_correct_j": None,
        "throughput_per_s": None,
        "mean_power_w": None,
        "peak_power_w": None,
        "energy_delay_product_js": None,
        "counter_to_integral": None,
        "ci95": None,
        "range": None,
        "net": None,
        "carbon": None,
    }


def not_measurable(meter: EnergyMeter, device: str) -> EnergyBlock:
    """Return the energy block for a device whose energy cannot be measured, with the reason of each component."""
    reason, detail = meter.missing[device_component(device)]
    block = unavailable(reason, device=device, detail=detail)
    for name in COMPONENTS:
        code, why = meter.missing.get(name, (NOT_RUN, None))
        block["components"][name] = absent(name, code, why, device)
    return block


def block(
    run: Run,
    meter: EnergyMeter,
    protocol: Protocol,
    *,
    device: str,
    share_correct: float | None = None,
    carbon: Carbon | None = None,
) -> EnergyBlock:
    """Return the energy block of a run: sums over the accepted windows, every window, and the conditions.

    A window is accepted if it has joules for every component of the total that this machine can measure.

    Args:
        run: windows and idle power.
        meter: the meter that measured the run.
        protocol: the protocol of the run.
        device: device of the backend, such as cpu or cuda:0.
        share_correct: fraction of the rows, 0 to 1, that were predicted correctly; None for a regression.
        carbon: the user's figures for electricity; None if they were not given.
    """
    used = [name for name in counted(device) if name in meter.components]
    windows = [_window(number, trial, used) for number, trial in enumerate(run.trials)]
    accepted = [window for window in windows if window["accepted"]]
    kept = [trial.window for trial, window in zip(run.trials, windows, strict=True) if window["accepted"]]
    measured = kept or [trial.window for trial in run.trials]
    made = unavailable(None, device=device)
    made["mode"], made["rate_per_s"] = "fixed_load" if protocol.rate else "max_throughput", protocol.rate
    made["components"] = {name: component(name, measured, meter, device) for name in COMPONENTS}
    made["windows"], made["windows_dropped"] = windows, len(windows) - len(accepted)
    made["status"], made["reason"], made["detail"] = _status(made, used, meter, device)
    if made["status"] != "unavailable":
        _add_figures(made, accepted, share_correct, protocol)
        board = made["components"][BOARD]
        made["peak_power_w"] = board.get("peak_power_w") if used == [BOARD] else None
        made["counter_to_integral"] = board.get("counter_to_integral")
        made["net"] = _net(accepted, run, used)
        made["carbon"] = _carbon(accepted, carbon)
    statistical = f"ci95: bootstrap over {len(accepted)} windows"
    made["uncertainty"] = {"statistical": statistical, "systematic": {BOARD: SENSOR}}
    made["protocol"] = _protocol(run, meter, protocol)
    made["context"] = context(meter)
    made["flags"] = flags(made["components"], made["context"]) + _warm_up_flags(run)
    return made


def _status(
    made: EnergyBlock, used: list[str], meter: EnergyMeter, device: str
) -> tuple[Status, str | None, str | None]:
    """Return the status of a block, its reason code and its details in words; both are None if all was measured."""
    components, windows = made["components"], made["windows"]
    missing = [name for name in counted(device) if name in meter.missing]
    dropped = Counter(window["reason"] for window in windows if not window["accepted"])
    if not used:
        first = components[missing[0]]
        return "unavailable", first["reason"], first["detail"]
    if 2 * dropped.total() > len(windows):
        reason, times = dropped.most_common(1)[0]
        return "unavailable", reason, f"{dropped.total()} of {len(windows)} windows dropped, {times} for this reason"
    if missing:
        parts = [f"a part of {name}" if name in used else name for name in missing]
        return "partial", meter.missing[missing[0]][0], f"not in the total: {', '.join(parts)}"
    return "measured", None, None


def _window(number: int, trial: Trial, used: list[str]) -> WindowRecord:
    window, work = trial.window, trial.work
    joules = {name: window.component_j(name) for name in COMPONENTS}
    reason = next((why for name in used if (why := window.reason(name))), None)
    total = sum(joules[name] or 0.0 for name in used) if used and reason is None else None
    return {
        "number": number,
        "accepted": total is not None,
        "reason": reason,
        "seconds": window.seconds,
        "joules": joules,
        "total_j": total,
        "per_inference_j": None if total is None or not work.rows else total / work.rows,
        "inferences": work.rows,
        "tokens": work.tokens,
        "slots": work.slots,
        "calls": work.calls,
        "mean_power_w": total and total / window.seconds,
        "integral_j": window.integral_j,
        "peak_power_w": window.peak_w,
        "gpu_states": window.states,
    }


def _add_figures(
    made: EnergyBlock, windows: list[WindowRecord], share_correct: float | None, protocol: Protocol
) -> None:
    total = sum(window["total_j"] or 0.0 for window in windows)
    seconds, rows = sum(window["seconds"] for window in windows), sum(window["inferences"] for window in windows)
    each = total / rows
    found = [window["per_inference_j"] or 0.0 for window in windows]
    made["window_s"] = seconds
    made["inferences"] = rows
    made["total_j"] = total
    made["per_inference_j"] = each
    made["per_token_j"] = total / sum(window["tokens"] for window in windows)
    made["per_slot_j"] = total / sum(window["slots"] for window in windows)
    made["per_correct_j"] = each / share_correct if share_correct else None
    made["throughput_per_s"] = rows / seconds
    made["mean_power_w"] = total / seconds
    made["energy_delay_product_js"] = each * seconds / rows
    made["ci95"] = list(bootstrap_mean_ci95(found, seed=protocol.seed)) if len(found) >= LEAST_WINDOWS else None
    made["range"] = [min(found), max(found)]


def _net(windows: list[WindowRecord], run: Run, used: list[str]) -> NetEnergy:
    """Return the joules per row that exceed what the idle machine, with the model loaded, uses in the same time."""
    record: NetEnergy = {"baseline": "hot_idle", "idle_power_w": None, "per_inference_j": None, "reason": None}
    before, after = (_idle_power_w(idle, used) for idle in (run.hot_before, run.hot_after))
    if before is None or after is None:
        return {**record, "reason": "no_baseline"}
    if abs(after - before) > DRIFT * after:
        return {**record, "reason": "baseline_drifted"}
    seconds, rows = sum(window["seconds"] for window in windows), sum(window["inferences"] for window in windows)
    net = sum(window["total_j"] or 0.0 for window in windows) - after * seconds
    if net <= 0:
        return {**record, "idle_power_w": after, "reason": "not_above_idle"}
    return {**record, "idle_power_w": after, "per_inference_j": net / rows}


def _idle_power_w(idle: Idle | None, used: list[str]) -> float | None:
    if idle is None or any(name not in idle.power_w for name in used):
        return None
    return sum(idle.power_w[name] for name in used)


def _carbon(windows: list[WindowRecord], carbon: Carbon | None) -> CarbonRecord | None:
    """Return the grams of CO2 by the user's figures, kWh x PUE x intensity; None if there are no figures."""
    if carbon is None:
        return None
    grams_per_j = carbon.intensity_g_per_kwh * carbon.pue / JOULES_PER_KWH
    total = sum(window["total_j"] or 0.0 for window in windows)
    rows = sum(window["inferences"] for window in windows)
    return {
        "intensity_g_per_kwh": carbon.intensity_g_per_kwh,
        "pue": carbon.pue,
        "total_g": total * grams_per_j,
        "per_inference_g": total / rows * grams_per_j,
    }


def _protocol(run: Run, meter: EnergyMeter, protocol: Protocol) -> ProtocolRecord:
    idles = {"cold": run.cold, "hot_before": run.hot_before, "hot_after": run.hot_after}
    return {
        "window_s": protocol.length_s(meter),
        "windows": protocol.windows,
        "seed": protocol.seed,
        "tick_ms": 1e3 * meter.tick_s or None,
        "warm_up": warm_up_record(run),
        "idle_w": {name: _idle_record(idle) for name, idle in idles.items()},
    }


def _idle_record(idle: Idle | None) -> IdleRecord | None:
    return None if idle is None else cast("IdleRecord", {**idle.power_w, "flat": idle.flat})


def warm_up_record(run: Run) -> WarmUpRecord | None:
    """Return the record of a run's warm-up; None if it had none."""
    return None if run.warm_up is None else {"seconds": run.warm_up.seconds, "steady": run.warm_up.steady}


def _warm_up_flags(run: Run) -> list[str]:
    if run.warm_up is None or run.warm_up.steady:
        return []
    return [f"not steady after {run.warm_up.seconds:.0f} s of warm-up"]
