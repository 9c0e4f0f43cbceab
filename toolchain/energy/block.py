"""The `energy` block of a result: figures of measured windows, and null with a reason for what was not measured."""

from collections import Counter
from dataclasses import dataclass

from toolchain.energy.component import Block, absent, component, counted
from toolchain.energy.context import context, flags
from toolchain.energy.protocol import Idle, Protocol, Run, Trial
from toolchain.evaluation.statistics import bootstrap_mean_ci95
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.sources import BOARD, COMPONENTS

FIGURES = (
    "window_s",
    "inferences",
    "total_j",
    "per_inference_j",
    "per_token_j",
    "per_slot_j",
    "per_correct_j",
    "throughput_per_s",
    "mean_power_w",
    "peak_power_w",
    "energy_delay_product_js",
    "counter_to_integral",
    "ci95",
    "range",
    "net",
    "carbon",
)

NOT_REQUESTED, NOT_RUN = "not_requested", "not_run"
LEAST_WINDOWS = 5
"""Fewer do not tell how they vary: no interval is given."""

SENSOR = 0.05
"""Of a board's energy, whatever the windows say: sensors are off by about this, seldom by 0.13 (source: protocol)."""

DRIFT = 0.05
"""Idle power that changed by more between before and after is no baseline."""

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Carbon:
    """What the user says of the electricity: grams of CO2 a kWh, and the power usage effectiveness of the place."""

    intensity_g_per_kwh: float
    pue: float = 1.0


def unavailable(reason: str, *, device: str, detail: str | None = None) -> Block:
    """Return the block of a run that measured nothing; `reason` is a code such as not_requested."""
    components = {name: absent(name, reason, detail, device) for name in COMPONENTS}
    return {
        "status": "unavailable",
        "reason": reason,
        "detail": detail,
        "components": components,
        "windows": [],
        **dict.fromkeys(FIGURES),
    }


def nothing(meter: EnergyMeter, device: str) -> Block:
    """Return the block of a device that cannot be measured, for the reason of its own component."""
    reasons = meter.missing
    reason, detail = reasons[BOARD if device != "cpu" else "cpu_package"]
    block = unavailable(reason, device=device, detail=detail)
    for name in COMPONENTS:
        code, why = reasons.get(name, (NOT_RUN, None))
        block["components"][name] |= {"reason": code, "detail": why}
    return block


def block(
    run: Run,
    meter: EnergyMeter,
    protocol: Protocol,
    *,
    device: str,
    share_correct: float | None = None,
    carbon: Carbon | None = None,
) -> Block:
    """Return the block of a run: sums over the accepted windows, each window, and what they were measured under.

    A window is accepted if every counted component that has a source gave joules in it.
    """
    used = [name for name in counted(device) if name in meter.components]
    windows = [_window(number, trial, used) for number, trial in enumerate(run.trials)]
    kept = [trial for trial, window in zip(run.trials, windows, strict=True) if window["accepted"]]
    tried = [trial.window for trial in kept or run.trials]
    made: Block = {
        "status": "unavailable",
        "reason": None,
        "detail": None,
        "mode": "fixed_load" if protocol.rate else "max_throughput",
        "rate_per_s": protocol.rate,
        "components": {name: component(name, tried, meter, device) for name in COMPONENTS},
        "windows": windows,
        "windows_dropped": len(windows) - len(kept),
        **dict.fromkeys(FIGURES),
    }
    made |= _status(made, used, windows, meter, device)
    if made["status"] != "unavailable":
        made |= _figures([window for window in windows if window["accepted"]], share_correct, protocol)
        made["peak_power_w"] = made["components"][BOARD].get("peak_power_w") if used == [BOARD] else None
        made["counter_to_integral"] = made["components"][BOARD].get("counter_to_integral")
        made["net"] = _net(made, run, used)
        made["carbon"] = _carbon(made, carbon)
    made["uncertainty"] = {"statistical": f"ci95: bootstrap over {len(kept)} windows", "systematic": {BOARD: SENSOR}}
    made["protocol"] = _protocol(run, meter, protocol)
    made["context"] = context(meter)
    made["flags"] = _flags(made, run)
    return made


def _status(made: Block, used: list[str], windows: list[Block], meter: EnergyMeter, device: str) -> Block:
    missing = [name for name in counted(device) if name in meter.missing]
    dropped = Counter(window["reason"] for window in windows if not window["accepted"])
    if not used:
        first = made["components"][missing[0]]
        return {"status": "unavailable", "reason": first["reason"], "detail": first["detail"]}
    if 2 * dropped.total() > len(windows):
        reason, times = dropped.most_common(1)[0]
        return {
            "status": "unavailable",
            "reason": reason,
            "detail": f"{dropped.total()} of {len(windows)} windows dropped, {times} for this",
        }
    if missing:
        parts = [f"a part of {name}" if name in used else name for name in missing]
        return {
            "status": "partial",
            "reason": meter.missing[missing[0]][0],
            "detail": f"not in the total: {', '.join(parts)}",
        }
    return {"status": "measured"}


def _window(number: int, trial: Trial, used: list[str]) -> Block:
    window, work = trial.window, trial.work
    joules = {name: window.component_j(name) for name in COMPONENTS}
    reason = next((why for name in used if (why := window.reason(name))), None)
    total = sum(joules[name] or 0.0 for name in used) if used and reason is None else None
    each = None if total is None or not work.rows else total / work.rows
    return {
        "number": number,
        "accepted": total is not None,
        "reason": reason,
        "seconds": window.seconds,
        "joules": joules,
        "total_j": total,
        "per_inference_j": each,
        "inferences": work.rows,
        "tokens": work.tokens,
        "slots": work.slots,
        "calls": work.calls,
        "mean_power_w": total and total / window.seconds,
        "integral_j": window.integral_j,
        "peak_power_w": window.peak_w,
        "gpu_states": window.states,
    }


def _figures(windows: list[Block], share_correct: float | None, protocol: Protocol) -> Block:
    total, seconds, rows, tokens, slots = (
        sum(window[key] for window in windows) for key in ("total_j", "seconds", "inferences", "tokens", "slots")
    )
    each = total / rows
    found = [window["per_inference_j"] for window in windows]
    return {
        "window_s": seconds,
        "inferences": rows,
        "total_j": total,
        "per_inference_j": each,
        "per_token_j": total / tokens,
        "per_slot_j": total / slots,
        "per_correct_j": each / share_correct if share_correct else None,
        "mean_power_w": total / seconds,
        "energy_delay_product_js": each * seconds / rows,
        "throughput_per_s": rows / seconds,
        "ci95": list(bootstrap_mean_ci95(found, seed=protocol.seed)) if len(found) >= LEAST_WINDOWS else None,
        "range": [min(found), max(found)],
    }


def _net(made: Block, run: Run, used: list[str]) -> Block:
    """Return joules an inference beyond those of the hot, idle machine in the same time."""
    record: Block = {"baseline": "hot_idle", "idle_power_w": None, "per_inference_j": None, "reason": None}
    powers = [_sum_of(idle, used) for idle in (run.hot_before, run.hot_after)]
    before, after = powers
    if before is None or after is None:
        return record | {"reason": "no_baseline"}
    if abs(after - before) > DRIFT * after:
        return record | {"reason": "baseline_drifted"}
    net = made["total_j"] - after * made["window_s"]
    if net <= 0:
        return record | {"idle_power_w": after, "reason": "not_above_idle"}
    return record | {"idle_power_w": after, "per_inference_j": net / made["inferences"]}


def _sum_of(idle: Idle | None, used: list[str]) -> float | None:
    if idle is None or any(name not in idle.power_w for name in used):
        return None
    return sum(idle.power_w[name] for name in used)


def _carbon(made: Block, carbon: Carbon | None) -> Block | None:
    """Return grams of CO2 as the user's own figures make them: kWh x PUE x intensity."""
    if carbon is None:
        return None
    grams_per_j = carbon.intensity_g_per_kwh * carbon.pue / JOULES_PER_KWH
    grams = {f"{key}_g": made[f"{key}_j"] * grams_per_j for key in ("total", "per_inference")}
    return {"intensity_g_per_kwh": carbon.intensity_g_per_kwh, "pue": carbon.pue, **grams}


def _protocol(run: Run, meter: EnergyMeter, protocol: Protocol) -> Block:
    idles = {"cold": run.cold, "hot_before": run.hot_before, "hot_after": run.hot_after}
    return {
        "window_s": protocol.length_s(meter),
        "windows": protocol.windows,
        "seed": protocol.seed,
        "tick_ms": 1e3 * meter.tick_s or None,
        "warm_up": run.warm_up and {"seconds": run.warm_up.seconds, "steady": run.warm_up.steady},
        "idle_w": {name: idle and {**idle.power_w, "flat": idle.flat} for name, idle in idles.items()},
    }


def _flags(made: Block, run: Run) -> list[str]:
    """Return in words what a reader must know before believing the figures."""
    found = flags(made["components"], made["context"])
    if run.warm_up and not run.warm_up.steady:
        found.append(f"not steady after {run.warm_up.seconds:.0f} s of warm-up")
    return found
