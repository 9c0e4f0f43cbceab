"""The record of `toolchain clocks`, which looks for the GPU clock that needs the least energy per row.

The command compares settings of the GPU: an SM clock that is locked, or a power limit. They are called points, and the
settings that the GPU had before are called `as found`. A block is one measurement window of each point, in random
order. Null means that a value was not measured or does not apply; a `reason` beside it says why.
"""

from typing import Literal, TypedDict

from toolchain.records.energy import EnergyContext, Status
from toolchain.records.energy_comparison import ComparisonProtocol, Pairing
from toolchain.records.result import ArtefactDigest, Environment

StageName = Literal["coarse", "fine", "final"]


class Hindrance(TypedDict):
    """A reason why the clocks of the GPU cannot be set on this machine."""

    code: str
    """Code of the reason: `no_right`, `mig`, `virtual_gpu`, `other_processes`, `processes_unknown` or `no_energy`."""
    text: str
    """The reason in words."""
    advice: str
    """What the user can do about it."""


class GpuSettings(TypedDict):
    """The settings of a GPU that limit its clock."""

    locked_mhz: list[int] | None
    """Lowest and highest SM clock that the lock allows, MHz; null if the clock is not locked. NVML does not report a
    lock, so that this is the value of `--locked`."""
    power_limit_w: float | None
    """Power limit, W; null if the board has no power limit that can be set."""


class ClockSetting(TypedDict):
    """One point of the search: a locked SM clock, a power limit, or (`as found`) the GPU's settings before it."""

    name: str
    """Name of the point: `as found`, or its value, such as `900 MHz` or `60 W`."""
    sm_mhz: int | None
    """SM clock that is locked, MHz; null if the point does not lock the clock."""
    power_limit_w: float | None
    """Power limit that is set, W; null if the point does not set one."""


class ClockPoint(ClockSetting):
    """What was measured at one point in one stage of the search."""

    status: Status
    """Whether the energy was measured, as in `EnergyBlock`."""
    reason: str | None
    """Code of the reason if `status` is not `measured`, else null."""
    per_inference_j: float | None
    """Energy per row, J."""
    ci95: list[float] | None
    """95 % confidence interval of `per_inference_j`."""
    throughput_per_s: float | None
    """Rows per second."""
    mean_power_w: float | None
    """Mean power, W."""
    measured_sm_mhz: float | None
    """Median SM clock that the GPU had during the windows, MHz. It can differ from the clock that was set."""
    capped_share: float | None
    """Fraction of the samples in which the power limit lowered the clock, 0 to 1."""
    against_found: Pairing | None
    """Comparison of this point with the settings as found, block by block; null for `as found` itself."""
    within_slowdown: bool
    """Whether the point is fast enough: throughput of the settings as found, divided by its throughput, is at most
    `max_slowdown`. True if there is no `max_slowdown`."""


class ClockStage(TypedDict):
    """One stage of the search: points that were measured in the same blocks."""

    name: StageName
    """`coarse`: points over the whole range; `fine`: points near the best of them; `final`: the best point, measured
    again."""
    blocks: list[list[str]]
    """For each block, the names of the points in the order in which they were measured."""
    points: list[ClockPoint]
    """What was measured at each point; the first is `as found`."""


class Restored(TypedDict):
    """The settings of the GPU before the command changed them and after it restored them."""

    before: GpuSettings
    """Settings before the first change."""
    after: GpuSettings | None
    """Settings at the end: the power limit as read from the GPU, and the lock that was restored (NVML does not report
    it). Null if the GPU could not be read."""


class ClocksRecord(TypedDict):
    """What `toolchain clocks` found: the points, their measurements, and the best point."""

    schema: int
    """Version of this format: 1."""
    kind: Literal["clocks"]
    """Kind of this record: always `clocks`."""
    applied: bool
    """Whether clocks were set and the energy was measured (`--apply`). Without it, the record only says what would be
    done."""
    bundle: str | None
    """Folder of the bundle; null if a checkpoint ran."""
    backend: str
    """Backend that ran the model."""
    device: str
    """Device, such as `cuda:0`."""
    precision: str
    """Precision of the model."""
    artefact: ArtefactDigest
    """The file that ran, and its digest."""
    gpu: str
    """Name of the GPU."""
    gpu_uuid: str
    """UUID of the GPU."""
    supported_mhz: list[int]
    """SM clocks that the GPU can be locked to, MHz, in ascending order."""
    power_limit_range_w: list[float] | None
    """Lowest and highest power limit that can be set, W; null unless power limits are compared (`--power`)."""
    planned: list[ClockSetting]
    """The points of the first stage."""
    hindrances: list[Hindrance]
    """Reasons why the clocks cannot be set on this machine; empty if they can be."""
    notes: list[str]
    """Other remarks, in words, that a user should read before setting clocks with `--apply`."""
    least_s: float
    """Least total length of the measurement windows of all stages, s. The search takes longer, because warm-ups are not
    included."""
    max_slowdown: float | None
    """Largest allowed slowdown (`--max-slowdown`): throughput as found divided by throughput of a point. Null if any
    slowdown is allowed."""
    stages: list[ClockStage]
    """The measurements of each stage; empty without `--apply`."""
    best: ClockSetting | None
    """The point that needs the least energy per row; null unless the last stage showed that it needs at least 2 % less
    than the settings as found."""
    verdict: Literal["resolved", "not resolved"] | None
    """`resolved` if there is a best point, else `not resolved`; null if nothing was measured."""
    reason: str | None
    """Code of the reason why there is no best point; null if there is one, or if nothing was measured."""
    keep: list[str]
    """Shell commands that set the GPU to the best point until the machine restarts; empty without a best point."""
    restored: Restored | None
    """The settings of the GPU before and after the command; null if nothing was set."""
    flags: list[str]
    """Remarks, in words, about what makes the measurements less reliable."""
    protocol: ComparisonProtocol | None
    """Settings of the measurement; null if nothing was measured."""
    context: EnergyContext
    """Power limits, clocks, temperatures and other processes of the GPU during the measurement."""
    task: str
    """Name of the task that the rows are from."""
    split: str
    """Name of the split that the rows are from."""
    n: int
    """Number of different rows in the load."""
    data_sha256: str
    """SHA-256 of the rows' texts and labels, hexadecimal."""
    seed: int
    """Seed of the random order of the points."""
    environment: Environment
    """Library versions, processor and GPU, as in a result."""
    created: str
    """Time at which the record was written, ISO 8601, UTC."""


class SavedClocksRecord(ClocksRecord):
    """The record of `toolchain clocks` as the command prints it."""

    file: str | None
    """Path of the file that the record was written to; null if nothing was measured. Only in the printed record."""
