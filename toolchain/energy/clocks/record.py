"""Build the record of a search for the clock with the lowest energy per row."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from toolchain.data.rows import Rows
from toolchain.energy.clocks.contest import Measured, Stage
from toolchain.energy.clocks.points import WATT_MW, Point
from toolchain.energy.components import context
from toolchain.energy.protocol import Protocol
from toolchain.energy.record import warm_up_record
from toolchain.evaluation.target import Target
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.guardian import nvidia_smi
from toolchain.meters.nvml import Device
from toolchain.meters.settings import Settings
from toolchain.records.clocks import (
    ClockPoint,
    ClockSetting,
    ClocksRecord,
    ClockStage,
    GpuSettings,
    Hindrance,
    Restored,
)
from toolchain.records.energy import GpuStates, WindowRecord
from toolchain.records.energy_comparison import ComparisonProtocol
from toolchain.runtimes.environment import describe

SCHEMA = 1

# Largest relative difference between the requested and the measured clock. A larger difference is reported, unless the
# power limit explains it.
MISSED = 0.03

# Reason code: no point uses less energy per row than the settings as found.
NONE_LESS = "none_less"

# Reason code: the final stage, which measures the best point again, found it slower than --max-slowdown allows.
TOO_SLOW = "too_slow"

# Reason code: the saving is smaller than the fraction LEAST_SAVING. A change of clocks changes the power, and the
# relative error of a sensor depends on the power (paper in protocol.py). A smaller saving may therefore come from the
# sensor, even if many windows show it.
SMALL, LEAST_SAVING = "small_saving", 0.02


@dataclass
class Search:
    """A search: its plan and, after --apply, its measurements.

    Attributes:
        target: the artefact and the backend that run.
        gpu: the GPU whose clock or power limit is set.
        rows: rows that the runtime runs.
        protocol: length and number of windows.
        supported: SM clocks that can be locked, MHz.
        limits_mw: lowest and highest power limit in mW; None if power limits are not compared.
        planned: points of the first stage.
        least_s: shortest possible time of all windows, s.
        max_slowdown: see `Contest`.
        hindrances: reasons why clocks cannot be set here.
        notes: what a user should know before setting clocks.
        before: settings of the GPU before the first change.
        after: settings after the last change; None if nothing was set or they could not be read.
        stages: the measurements; empty without --apply.
    """

    target: Target
    gpu: Device
    rows: Rows
    protocol: Protocol
    supported: list[int]
    limits_mw: tuple[int, int] | None
    planned: list[Point]
    least_s: float
    max_slowdown: float | None
    hindrances: list[Hindrance]
    notes: list[str]
    before: Settings
    after: Settings | None = None
    stages: list[Stage] = field(default_factory=list)


def record_of(search: Search, meter: EnergyMeter) -> ClocksRecord:
    """Return the record of a search; without --apply it has the planned points and the hindrances, but no figures."""
    target, recipe = search.target, search.target.resolved.recipe
    final = next((stage for stage in search.stages if stage.name == "final"), None)
    best, reason = _judged(final)
    return {
        "schema": SCHEMA,
        "kind": "clocks",
        "applied": bool(search.stages),
        "bundle": str(target.bundle.path) if target.bundle else None,
        "backend": target.backend,
        "device": target.device,
        "precision": target.precision,
        "artefact": {"file": str(target.artefact["file"]), "sha256": target.artefact["sha256"]},
        "gpu": search.gpu.name,
        "gpu_uuid": search.gpu.uuid,
        "supported_mhz": search.supported,
        "power_limit_range_w": [limit / WATT_MW for limit in search.limits_mw] if search.limits_mw else None,
        "planned": [setting(one) for one in search.planned],
        "hindrances": search.hindrances,
        "notes": search.notes,
        "least_s": search.least_s,
        "max_slowdown": search.max_slowdown,
        "stages": [_stage(stage, search) for stage in search.stages],
        "best": setting(best) if best else None,
        "verdict": None if not search.stages else "resolved" if best else "not resolved",
        "reason": reason if search.stages else None,
        "keep": nvidia_smi(search.gpu.uuid, _kept(best, search.before)) if best else [],
        "restored": _restored(search) if search.stages else None,
        "flags": _flags(search),
        "protocol": _protocol(search, meter) if search.stages else None,
        "context": context(meter),
        "task": target.resolved.task.name,
        "split": recipe.split,
        "n": len(search.rows),
        "data_sha256": search.rows.digest,
        "seed": search.protocol.seed,
        "environment": describe(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def setting(point: Point) -> ClockSetting:
    """Return a point as it is written to a record: its name, SM clock (MHz) and power limit (W)."""
    limit = point.power_limit_mw
    return {
        "name": point.name,
        "sm_mhz": point.sm_mhz,
        "power_limit_w": None if limit is None else limit / WATT_MW,
    }


def _judged(final: Stage | None) -> tuple[Point | None, str | None]:
    """Return (best point, None) if the final stage showed that it saves energy, else (None, reason code)."""
    if final is None:
        return None, NONE_LESS
    last = final.points[-1]
    assert last.against
    ratio = last.against["ratio"] or 1.0
    if last.against["reason"] or ratio >= 1:
        return None, last.against["reason"] or NONE_LESS
    if not last.fast_enough:
        return None, TOO_SLOW
    return (last.point, None) if ratio <= 1 - LEAST_SAVING else (None, SMALL)


def _kept(best: Point, before: Settings) -> Settings:
    """Return the settings that keep the best point: its clock, or its power limit and the initial clock lock."""
    made = best.of(before)
    return made if best.power_limit_mw is not None else Settings(made.locked_mhz, None)


def _stage(stage: Stage, search: Search) -> ClockStage:
    return {"name": stage.name, "blocks": stage.order, "points": [_point(one, search) for one in stage.points]}


def _point(one: Measured, search: Search) -> ClockPoint:
    made = one.block
    states = _states(made["windows"], search.gpu)
    return {
        **setting(one.point),
        "status": made["status"],
        "reason": made["reason"],
        "per_inference_j": made["per_inference_j"],
        "ci95": made["ci95"],
        "throughput_per_s": made["throughput_per_s"],
        "mean_power_w": made["mean_power_w"],
        "measured_sm_mhz": _mean([state["sm_clock_mhz"]["median"] for state in states]),
        "capped_share": _mean([state["throttled"]["sw_power_cap"] for state in states]),
        "against_found": one.against,
        "within_slowdown": one.fast_enough,
    }


def _states(windows: Sequence[WindowRecord], gpu: Device) -> list[GpuStates]:
    return [window["gpu_states"][gpu.uuid] for window in windows if gpu.uuid in window["gpu_states"]]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _settings(settings: Settings) -> GpuSettings:
    limit = settings.power_limit_mw
    return {
        "locked_mhz": list(settings.locked_mhz) if settings.locked_mhz else None,
        "power_limit_w": None if limit is None else limit / WATT_MW,
    }


def _restored(search: Search) -> Restored:
    after = search.after
    return {"before": _settings(search.before), "after": _settings(after) if after else None}


def _flags(search: Search) -> list[str]:
    """Return remarks on the measurements, and on clocks that differ from the requested one.

    A remark begins with the names of the points that it concerns, unless it concerns all points.
    """
    found: dict[str, list[str]] = {}
    for stage in search.stages:
        for one in stage.points:
            for flag in one.block.get("flags", []):
                found.setdefault(flag, []).append(one.point.name)
            shown = _point(one, search)
            asked, real, capped = shown["sm_mhz"], shown["measured_sm_mhz"], shown["capped_share"]
            if asked and real and not capped and abs(real - asked) > MISSED * asked:
                found.setdefault(f"the GPU ran at {real:.0f} MHz instead of {asked} MHz", []).append(one.point.name)
    names = {one.point.name for stage in search.stages for one in stage.points}
    return [flag if set(its) == names else f"{', '.join(dict.fromkeys(its))}: {flag}" for flag, its in found.items()]


def _protocol(search: Search, meter: EnergyMeter) -> ComparisonProtocol:
    rate = search.protocol.rate
    runs = {one.point.name: one.run for stage in search.stages for one in stage.points}
    return {
        "mode": "fixed_load" if rate else "max_throughput",
        "rate_per_s": rate,
        "window_s": search.protocol.length_s(meter),
        "tick_ms": 1e3 * meter.tick_s or None,
        "warm_up": {name: warm_up_record(run) for name, run in runs.items()},
    }
