"""Show the clocks of a GPU, and the energy per row at each clock, on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.cli.show.pairs import why
from toolchain.energy.clocks.points import WATT_MW
from toolchain.energy.clocks.record import LEAST_SAVING, NONE_LESS, SMALL, TOO_SLOW
from toolchain.meters.guardian import nvidia_smi
from toolchain.meters.settings import Settings
from toolchain.records.clocks import ClockPoint, ClocksRecord, ClockStage, GpuSettings, SavedClocksRecord

LEGEND = (
    "as found: the GPU's settings at the start; ratio: energy per row, divided by the energy per row as found; capped: "
    "fraction of the time in which the power limit lowered the clock"
)

# Reason code -> its text; `toolchain.cli.show.pairs` has the others.
WHY = {
    NONE_LESS: "no clock or power limit uses less energy than the settings as found",
    TOO_SLOW: "when measured again, the best point is slower than --max-slowdown allows",
    SMALL: f"the best point saves less than {LEAST_SAVING:.0%}, which may be an error of the power sensor",
}

# A systemd unit that locks the clock of a GPU at each start of the machine.
UNIT = """\
[Unit]
Description=Clock of {gpu}
After=nvidia-persistenced.service

[Service]
Type=oneshot
RemainAfterExit=yes
{starts}
{stops}

[Install]
WantedBy=multi-user.target"""


def clocked(record: SavedClocksRecord) -> None:
    """Print the measurements of each stage of the search, the best settings, and the commands that keep them.

    If nothing was measured, print what would be compared.
    """
    if not record["applied"]:
        _planned(record)
        return
    for stage in record["stages"]:
        _stage(record, stage)
    put(LEGEND, _verdict(record), *(f"note: {flag}" for flag in record["flags"]), _restored(record))
    if record["keep"]:
        starts = "\n".join(f"ExecStart=/usr/bin/{line}" for line in record["keep"])
        stops = "\n".join(f"ExecStop=/usr/bin/{line}" for line in _undone(record))
        put("", "to set the best point until the machine restarts:", *(f"  {line}" for line in record["keep"]))
        put("", "to set it at each start of the machine, write this to /etc/systemd/system/gpu-clock.service:", "")
        put(UNIT.format(gpu=record["gpu"], starts=starts, stops=stops), "")
    put(f"written to {record['file']}")


def _undone(record: ClocksRecord) -> list[str]:
    """Return the commands that undo the settings of the best point: they unlock the clock.

    If the best point has a power limit, they also restore the previous limit.
    """
    assert record["best"]
    assert record["restored"]
    limit = record["restored"]["before"]["power_limit_w"] if record["best"]["power_limit_w"] else None
    return nvidia_smi(record["gpu_uuid"], Settings(None, None if limit is None else round(limit * WATT_MW)), reset=True)


def _planned(record: ClocksRecord) -> None:
    clocks, limits = record["supported_mhz"], record["power_limit_range_w"]
    put(
        f"{record['gpu']} ({record['gpu_uuid']}): {len(clocks)} clocks from {clocks[0]} to {clocks[-1]} MHz"
        + (f", power limits from {limits[0]:g} to {limits[1]:g} W" if limits else ""),
        f"would compare these with the settings as found: {', '.join(one['name'] for one in record['planned'])}",
        f"the measurement windows take at least {record['least_s'] / 60:.0f} min in all, without warm-ups",
        *(f"note: {note}" for note in record["notes"]),
    )
    for one in record["hindrances"]:
        put(f"not possible here: {one['text']}. {one['advice']}.")
    if not record["hindrances"]:
        put("next: the same command with --apply sets these clocks, measures, and restores all settings")


def _stage(record: ClocksRecord, stage: ClockStage) -> None:
    rows = f"{record['task']} {record['split']}, {record['n']} rows"
    window = record["protocol"]["window_s"] if record["protocol"] else 0.0
    table = titled(f"{stage['name']}, {rows}: {len(stage['blocks'])} blocks of {window:g} s", narrow=True)
    for heading in ("point", "J/row [95 %]", "rows/s", "W", "MHz", "capped", "ratio [95 %]", "verdict"):
        table.add_column(heading, justify="left" if heading in ("point", "verdict") else "right", no_wrap=True)
    for one in stage["points"]:
        table.add_row(*_cells(one))
    put(table)


def _cells(one: ClockPoint) -> list[str]:
    if one["per_inference_j"] is None:
        return [one["name"], f"n/a ({one['reason']})", *"------"]
    interval = " [{:#.4g}, {:#.4g}]".format(*one["ci95"]) if one["ci95"] else ""
    found = one["against_found"]
    ratio, verdict = "-", "as found"
    if found:
        bounds = found["ratio_ci95"]
        ratio = "-" if found["ratio"] is None else f"{found['ratio']:.3f}"
        ratio += f" [{bounds[0]:.3f}, {bounds[1]:.3f}]" if bounds else ""
        verdict = found["verdict"] if one["within_slowdown"] else "too slow"
    return [
        one["name"],
        f"{one['per_inference_j']:#.4g}{interval}",
        f"{one['throughput_per_s'] or 0:,.0f}",
        f"{one['mean_power_w'] or 0:.1f}",
        "-" if one["measured_sm_mhz"] is None else f"{one['measured_sm_mhz']:.0f}",
        "-" if one["capped_share"] is None else f"{one['capped_share']:.0%}",
        ratio,
        verdict,
    ]


def _verdict(record: ClocksRecord) -> str:
    if record["best"] is None:
        return (
            f"not resolved: {WHY.get(str(record['reason'])) or why(record['reason'])}. Leave the settings as they are."
        )
    found = record["stages"][-1]["points"][-1]["against_found"]
    assert found
    return (
        f"{record['best']['name']}: {-(found['difference_percent'] or 0):.1f} % less energy per row than as found, "
        f"at {found['throughput_ratio']:.3f} times the rows/s"
    )


def _restored(record: ClocksRecord) -> str:
    put_back = record["restored"]
    assert put_back
    before, after = put_back["before"], put_back["after"]
    state = (
        "could not be read again"
        if after is None
        else f"now {_settings(after)} (NVML cannot read a clock lock: the lock shown is the one that was restored)"
    )
    return f"settings before: {_settings(before)}; {state}"


def _settings(settings: GpuSettings) -> str:
    lock, limit = settings["locked_mhz"], settings["power_limit_w"]
    locked = f"locked from {lock[0]} to {lock[1]} MHz" if lock else "not locked"
    return locked if limit is None else f"{locked}, {limit:g} W"
