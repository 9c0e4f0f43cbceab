"""The record of `toolchain clocks`; null means that a value was not measured, and a `reason` says why."""

from typing import Literal, TypedDict

from toolchain.records.energy import EnergyContext, Status
from toolchain.records.energy_comparison import ComparisonProtocol, Pairing
from toolchain.records.result import ArtefactDigest, Environment

StageName = Literal["coarse", "fine", "final"]


class Hindrance(TypedDict):
    """What forbids setting the clocks of the GPU."""

    code: str
    """`no_right`, `mig`, `virtual_gpu`, `other_processes`, `processes_unknown` or `no_energy`."""
    text: str
    """The same in words."""
    advice: str
    """The ways out."""


class GpuSettings(TypedDict):
    """Settings of the GPU that its clock follows."""

    locked_mhz: list[int] | None
    """Lowest and highest SM clock of the lock, MHz; null: not locked. NVML does not report it: it is `--locked`."""
    power_limit_w: float | None
    """Power limit, W; null where the board lacks one that can be set."""


class ClockSetting(TypedDict):
    """One point that is compared."""

    name: str
    """Name in this record: `as found`, `900 MHz` or `60 W`."""
    sm_mhz: int | None
    """SM clock that is locked, MHz."""
    power_limit_w: float | None
    """Power limit that is set, W."""


class ClockPoint(ClockSetting):
    """One point in one stage, with its figures as in `EnergyBlock`."""

    status: Status
    """Whether it was measured."""
    reason: str | None
    """Code of the reason for a status other than `measured`."""
    per_inference_j: float | None
    """Joules of one row."""
    ci95: list[float] | None
    """95 % interval of `per_inference_j`."""
    throughput_per_s: float | None
    """Rows per second."""
    mean_power_w: float | None
    """Mean power, W."""
    measured_sm_mhz: float | None
    """Median of the SM clock in the windows, MHz: what the GPU really ran at."""
    capped_share: float | None
    """Share of the samples, 0 to 1, in which the power limit lowered the clock."""
    against_found: Pairing | None
    """The comparison with the settings as found, block by block; null for those themselves."""
    within_slowdown: bool
    """Whether its throughput is at least that of the settings as found divided by `max_slowdown`."""


class ClockStage(TypedDict):
    """Points that were measured in common blocks."""

    name: StageName
    """`coarse`: points over the whole range; `fine`: beside the best of them; `final`: the best alone."""
    blocks: list[list[str]]
    """Names of the points in the order of each block."""
    points: list[ClockPoint]
    """The points, the settings as found first."""


class Restored(TypedDict):
    """The settings of the GPU before the first change and after the last."""

    before: GpuSettings
    """Settings before anything was set."""
    after: GpuSettings | None
    """Power limit at the end, and the lock that was put back, which NVML does not report; null if it was unreadable."""


class ClocksRecord(TypedDict):
    """The record of `toolchain clocks`."""

    schema: int
    """Version of this format: 1."""
    kind: Literal["clocks"]
    """Kind of record."""
    applied: bool
    """Whether anything was set and measured (`--apply`)."""
    bundle: str | None
    """Folder of the bundle; null for a checkpoint."""
    backend: str
    """Backend."""
    device: str
    """Device, such as cuda:0."""
    precision: str
    """Precision."""
    artefact: ArtefactDigest
    """File that ran."""
    gpu: str
    """Name of the GPU."""
    gpu_uuid: str
    """UUID of the GPU."""
    supported_mhz: list[int]
    """SM clocks that can be locked, MHz, rising."""
    power_limit_range_w: list[float] | None
    """Lowest and highest power limit, W."""
    planned: list[ClockSetting]
    """Points of the first stage."""
    hindrances: list[Hindrance]
    """What forbids setting them."""
    notes: list[str]
    """What else a user needs to know before setting them."""
    least_s: float
    """Least time that the windows of all stages take, s, without warm-ups."""
    max_slowdown: float | None
    """Highest allowed ratio of the throughput as found to that of a point; null for none."""
    stages: list[ClockStage]
    """The measurements."""
    best: ClockSetting | None
    """The point with the least energy a row, if the last stage showed that it uses at least 2 % less than as found."""
    verdict: Literal["resolved", "not resolved"] | None
    """Whether there is a best point; null if nothing was measured."""
    reason: str | None
    """Code of the reason why not."""
    keep: list[str]
    """Commands that set the best point until the machine starts again."""
    restored: Restored | None
    """Settings before and after; null if nothing was set."""
    flags: list[str]
    """Remarks, in words, that a reader needs before believing the figures."""
    protocol: ComparisonProtocol | None
    """How it was measured."""
    context: EnergyContext
    """Limits, clocks, temperatures and other users of the GPU."""
    task: str
    """Task."""
    split: str
    """Split that the rows are from."""
    n: int
    """Rows that every point ran."""
    data_sha256: str
    """Digest of the rows."""
    seed: int
    """Seed of the order of the blocks."""
    environment: Environment
    """The machine and its packages, as in a result."""
    created: str
    """Moment of writing, ISO 8601, UTC."""


class SavedClocksRecord(ClocksRecord):
    """A record of `clocks` as the command line prints it."""

    file: str | None
    """File that the record was written to; null if nothing was measured. Not in the file itself."""
