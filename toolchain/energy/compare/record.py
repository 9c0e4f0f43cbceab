"""Build the record of an energy comparison: figures of each contender, comparisons with the baseline, and remarks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from toolchain.data.rows import Rows
from toolchain.energy.compare.contenders import Contender
from toolchain.energy.compare.pairs import pair, unresolved
from toolchain.energy.components import context
from toolchain.energy.protocol import Protocol, Run
from toolchain.energy.record import block, not_measurable, warm_up_record
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.sources import COMPONENTS
from toolchain.records.energy import EnergyBlock
from toolchain.records.energy_comparison import (
    ComparisonProtocol,
    ComponentMethod,
    ContenderRecord,
    EnergyComparison,
    PairRecord,
)
from toolchain.runtimes.environment import describe

SCHEMA = 1

OTHER_DEVICES = "contenders run on different devices, so their totals add up different components"
OTHER_LENGTHS = "contenders truncate rows at different lengths, so a row is not the same work for all of them"


@dataclass
class Comparison:
    """The contenders and their measurements.

    Attributes:
        contenders: the contenders, the baseline first.
        rows: rows that every contender runs.
        protocol: length and number of windows.
        order: for each block, the contenders' names in the order of measurement; empty if nothing could be measured.
        runs: contender's name -> its measurements; a contender that could not be measured is missing.
        slots: contender's name -> largest number of positions in a batch, padded ones included; None for single rows.
    """

    contenders: list[Contender]
    rows: Rows
    protocol: Protocol
    order: list[list[str]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    slots: dict[str, int | None] = field(default_factory=dict)


def record_of(comparison: Comparison, meter: EnergyMeter) -> EnergyComparison:
    """Return the record of a comparison; where energy was not measured, it has the reason instead of figures."""
    blocks = {one.name: _block(comparison, one, meter) for one in comparison.contenders}
    first, *others = comparison.contenders
    reasons = [block["reason"] for block in blocks.values() if block["status"] != "measured"]
    statuses = {block["status"] for block in blocks.values()}
    resolved = first.target.resolved
    return {
        "schema": SCHEMA,
        "kind": "energy_comparison",
        "status": statuses.pop() if len(statuses) == 1 else "partial",
        "reason": reasons[0] if reasons else None,
        "blocks": comparison.order,
        "seed": comparison.protocol.seed,
        "contenders": [_entry(comparison, one, blocks[one.name]) for one in comparison.contenders],
        "comparisons": [_comparison(first, other, blocks, seed=comparison.protocol.seed) for other in others],
        "protocol": _protocol(comparison, meter),
        "context": context(meter),
        "flags": _flags(comparison.contenders, blocks),
        "components": _components(meter),
        "task": resolved.task.name,
        "split": resolved.recipe.split,
        "n": len(comparison.rows),
        "data_sha256": comparison.rows.digest,
        "environment": describe(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _block(comparison: Comparison, contender: Contender, meter: EnergyMeter) -> EnergyBlock:
    """Return the energy block of a contender; if it was not run, the block has the reason instead of figures."""
    device, run = contender.target.device, comparison.runs.get(contender.name)
    return block(run, meter, comparison.protocol, device=device) if run else not_measurable(meter, device)


def _entry(comparison: Comparison, contender: Contender, block: EnergyBlock) -> ContenderRecord:
    target = contender.target
    return {
        "name": contender.name,
        "bundle": str(contender.bundle),
        "backend": target.backend,
        "device": target.device,
        "precision": target.precision,
        "artefact": {"file": str(target.artefact["file"]), "sha256": target.artefact["sha256"]},
        "batch_slots": comparison.slots.get(contender.name),
        "status": block["status"],
        "reason": block["reason"],
        "detail": block["detail"],
        "per_inference_j": block["per_inference_j"],
        "per_token_j": block["per_token_j"],
        "ci95": block["ci95"],
        "throughput_per_s": block["throughput_per_s"],
        "mean_power_w": block["mean_power_w"],
        "counter_to_integral": block["counter_to_integral"],
        "components": block["components"],
        "windows": block["windows"],
    }


def _comparison(first: Contender, other: Contender, blocks: dict[str, EnergyBlock], *, seed: int) -> PairRecord:
    baseline, candidate = blocks[first.name], blocks[other.name]
    unmeasured = [block["reason"] for block in (baseline, candidate) if block["per_inference_j"] is None]
    if unmeasured:
        found = unresolved(unmeasured[0], dropped=len(baseline["windows"]))
    else:
        found = pair(baseline["windows"], candidate["windows"], seed=seed)
    return {"baseline_name": first.name, "candidate_name": other.name, **found}


def _protocol(comparison: Comparison, meter: EnergyMeter) -> ComparisonProtocol:
    rate = comparison.protocol.rate
    return {
        "mode": "fixed_load" if rate else "max_throughput",
        "rate_per_s": rate,
        "window_s": comparison.protocol.length_s(meter),
        "tick_ms": 1e3 * meter.tick_s or None,
        "warm_up": {name: warm_up_record(run) for name, run in comparison.runs.items()},
    }


def _flags(contenders: Sequence[Contender], blocks: dict[str, EnergyBlock]) -> list[str]:
    """Return remarks on the measurements; one that holds only for some contenders begins with their names."""
    flags = []
    if len({one.target.device for one in contenders}) > 1:
        flags.append(OTHER_DEVICES)
    if len({one.target.resolved.max_length for one in contenders}) > 1:
        flags.append(OTHER_LENGTHS)
    found = {name: its.get("flags", []) for name, its in blocks.items()}
    for flag in dict.fromkeys(flag for its in found.values() for flag in its):
        names = [name for name, its in found.items() if flag in its]
        flags.append(flag if len(names) == len(found) else f"{', '.join(names)}: {flag}")
    return flags


def _components(meter: EnergyMeter) -> dict[str, ComponentMethod]:
    """Return the method by which this machine measures each component, or the reason why it cannot."""
    methods = {component: one.source.method for (component, _), one in meter.readings.items()}
    made: dict[str, ComponentMethod] = {}
    for name in COMPONENTS:
        reason, detail = meter.missing.get(name, (None, None))
        made[name] = {"method": methods.get(name, "unavailable"), "reason": reason, "detail": detail}
    return made
