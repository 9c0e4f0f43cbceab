"""The record of `toolchain power`; null means that a value was not measured, and a `reason` says why."""

from typing import TypedDict

from toolchain.records.energy import ComponentRecord, EnergyContext, Status


class PowerEnvironment(TypedDict):
    """The machine of a power record."""

    cpu: str
    """Processor."""
    threads: int
    """Processors that this process may use."""
    gpu: str | None
    """Name of the first GPU."""
    driver: str | None
    """Version of NVIDIA's driver."""
    cuda: str | None
    """CUDA version that the driver supports."""
    platform: str
    """System and architecture."""


class ReadingRecord(TypedDict):
    """A measurement that begins and ends at any moment."""

    seconds: float | None
    """Length, s."""
    status: Status
    """As in the `energy` block of a result."""
    components: dict[str, ComponentRecord]
    """Component -> its joules and method."""
    total_j: float | None
    """Joules of the components that are in the total."""
    mean_power_w: float | None
    """Total joules divided by seconds, W."""
    peak_power_w: float | None
    """Highest power of the components in the total, W."""
    edge_error_j: float | None
    """The largest error of `total_j` that the ends of the interval can cause, J."""
    relative_edge_error: float | None
    """The same as a share of `total_j`."""
    samples: dict[str, list[float]] | None
    """`time_s`: seconds since the start; `<component>_w`: power, W; `<component>_j`: joules since the start."""
    context: EnergyContext
    """Limits, clocks, temperatures and other users of the GPUs."""
    flags: list[str]
    """Remarks, in words, that a reader needs before believing the figures."""


class PowerRecord(ReadingRecord):
    """The record of `toolchain power`."""

    schema: int
    """Version of this format: 1."""
    command: list[str] | None
    """Command that ran, with its arguments; null of a machine that was watched."""
    exit_code: int | None
    """Exit code of the command; above 128: ended by the signal of this number less 128."""
    environment: PowerEnvironment
    """The machine."""
    created: str
    """Moment of writing, ISO 8601, UTC."""


class SavedPowerRecord(PowerRecord):
    """A power record that `toolchain report` has read."""

    file: str
    """File that the record was read from; not in the file itself."""
