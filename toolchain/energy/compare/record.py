"""The record of an energy comparison: each contender's figures, each candidate against the baseline, and doubts."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toolchain.energy import block as figures
from toolchain.energy.compare.contenders import Contender
from toolchain.energy.context import context
from toolchain.energy.evaluation import device_component
from toolchain.energy.pairs import NOT_RESOLVED, Measured, Pairing, pair
from toolchain.energy.protocol import Protocol, Run
from toolchain.meters.energy import EnergyMeter
from toolchain.meters.sources import COMPONENTS

Record = dict[str, Any]

SCHEMA = 1
KIND = "energy_comparison"

KEPT = (
    "status",
    "reason",
    "detail",
    "per_inference_j",
    "per_token_j",
    "ci95",
    "throughput_per_s",
    "mean_power_w",
    "counter_to_integral",
    "components",
    "windows",
)
"""Of the block of a contender, whose other keys are the same for all or are not asked for here."""

OTHER_DEVICES = "contenders run on different devices, so that their totals hold different components"
OTHER_LENGTHS = "contenders cut rows off at different lengths, so that a row is not the same work for all"


@dataclass
class Match:
    """Contenders, and what was measured of those that could be: the order of the blocks, runs and batches by name."""

    contenders: list[Contender]
    protocol: Protocol
    order: list[list[str]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    slots: dict[str, int | None] = field(default_factory=dict)


def lacking(device: str, meter: EnergyMeter) -> tuple[str, str] | None:
    """Return why (code, detail) the device itself cannot be measured, or None if it can be."""
    own = device_component(device)
    return None if own in meter.components else meter.missing[own]


def record_of(match: Match, meter: EnergyMeter) -> Record:
    """Return the record of a match; where nothing was measured, one that says why."""
    blocks = {one.name: _block(match, one, meter) for one in match.contenders}
    first, *others = match.contenders
    reasons = [block["reason"] for block in blocks.values() if block["status"] != "measured"]
    statuses = {block["status"] for block in blocks.values()}
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "status": statuses.pop() if len(statuses) == 1 else "partial",
        "reason": reasons[0] if reasons else None,
        "blocks": match.order,
        "seed": match.protocol.seed,
        "contenders": [_entry(match, one, blocks[one.name]) for one in match.contenders],
        "comparisons": [_comparison(first, other, blocks, seed=match.protocol.seed) for other in others],
        "protocol": _protocol(match, meter),
        "context": context(meter),
        "flags": _flags(match.contenders, blocks),
        "components": _components(meter),
    }


def _block(match: Match, contender: Contender, meter: EnergyMeter) -> Record:
    """Return the energy block of a contender, or one that says why it did not run."""
    device, run = contender.target.device, match.runs.get(contender.name)
    return figures.block(run, meter, match.protocol, device=device) if run else figures.nothing(meter, device)


def _entry(match: Match, contender: Contender, block: Record) -> Record:
    target = contender.target
    return {
        "name": contender.name,
        "bundle": str(contender.bundle),
        "backend": target.backend,
        "device": target.device,
        "precision": target.precision,
        "artefact": target.artefact,
        "batch_slots": match.slots.get(contender.name),
        **{key: block.get(key) for key in KEPT},
    }


def _comparison(first: Contender, other: Contender, blocks: dict[str, Record], *, seed: int) -> Record:
    ours, theirs = blocks[first.name], blocks[other.name]
    unmeasured = [block["reason"] for block in (ours, theirs) if block["per_inference_j"] is None]
    if unmeasured:
        found = Pairing(NOT_RESOLVED, unmeasured[0], blocks=0, dropped=len(ours["windows"]))
    else:
        found = pair(_series(ours), _series(theirs), seed=seed)
    return {"baseline_name": first.name, "candidate_name": other.name, **dataclasses.asdict(found)}


def _series(block: Record) -> list[Measured | None]:
    """Return a contender's windows; one of 0 J, which a broken sensor gives, is none."""
    return [
        Measured(window["per_inference_j"], window["inferences"] / window["seconds"], window["mean_power_w"])
        if window["per_inference_j"]
        else None
        for window in block["windows"]
    ]


def _protocol(match: Match, meter: EnergyMeter) -> Record:
    rate = match.protocol.rate
    return {
        "mode": "fixed_load" if rate else "max_throughput",
        "rate_per_s": rate,
        "window_s": match.protocol.length_s(meter),
        "tick_ms": 1e3 * meter.tick_s or None,
        "warm_up": {name: run.warm_up and dataclasses.asdict(run.warm_up) for name, run in match.runs.items()},
    }


def _flags(contenders: Sequence[Contender], blocks: dict[str, Record]) -> list[str]:
    """Return what holds for all once, and what holds for some with their names."""
    flags = []
    if len({one.target.device for one in contenders}) > 1:
        flags.append(OTHER_DEVICES)
    if len({one.target.resolved.max_length for one in contenders}) > 1:
        flags.append(OTHER_LENGTHS)
    for flag in dict.fromkeys(flag for block in blocks.values() for flag in block.get("flags", [])):
        whose = [name for name, block in blocks.items() if flag in block.get("flags", [])]
        flags.append(flag if len(whose) == len(blocks) else f"{', '.join(whose)}: {flag}")
    return flags


def _components(meter: EnergyMeter) -> Record:
    """Return how each component is measured, or why not; the joules are each contender's."""
    methods = {component: track.source.method for (component, _), track in meter.tracks.items()}
    made = {}
    for name in COMPONENTS:
        reason, detail = meter.missing.get(name, (None, None))
        made[name] = {"method": methods.get(name, "unavailable"), "reason": reason, "detail": detail}
    return made
