"""The record of `toolchain power`, which measures the energy of a command or of the machine.

Null means that a value was not measured; a `reason` beside it says why.
"""

from typing import TypedDict

from toolchain.records.energy import ComponentRecord, EnergyContext, Status


class PowerEnvironment(TypedDict):
    """The machine on which the energy was measured."""

    cpu: str
    """Model name of the processor."""
    threads: int
    """Number of logical processors that this process may use."""
    gpu: str | None
    """Name of the first GPU; null without a GPU."""
    driver: str | None
    """Version of NVIDIA's driver; null without one."""
    cuda: str | None
    """CUDA version that NVIDIA's driver supports; null without a driver."""
    platform: str
    """Operating system and architecture."""


class ReadingRecord(TypedDict):
    """Energy and power over one interval, such as the run of a command."""

    seconds: float | None
    """Length of the interval, s."""
    status: Status
    """`measured`; `partial`: the total lacks a component; `unavailable`: no energy was measured."""
    components: dict[str, ComponentRecord]
    """Component -> its energy, and how it was measured."""
    total_j: float | None
    """Energy of the components in the total, J."""
    mean_power_w: float | None
    """`total_j` divided by `seconds`, W."""
    peak_power_w: float | None
    """Highest power of the components in the total, added up, W."""
    edge_error_j: float | None
    """Largest error of `total_j` that can arise because the interval starts and ends between two updates of the
    sources, J."""
    relative_edge_error: float | None
    """`edge_error_j` divided by `total_j`."""
    samples: dict[str, list[float]] | None
    """Time series. `time_s`: seconds since the start; `<component>_w`: power of a component, W; `<component>_j`: its
    energy since the start, J."""
    context: EnergyContext
    """Power limits, clocks, temperatures and other processes of the GPUs during the interval."""
    flags: list[str]
    """Remarks, in words, about what makes the figures less reliable."""


class PowerRecord(ReadingRecord):
    """What `toolchain power` measured, with the command that ran meanwhile."""

    schema: int
    """Version of this format: 1."""
    command: list[str] | None
    """The command that ran, with its arguments; null if only the machine was measured."""
    exit_code: int | None
    """Exit code of the command; a value above 128 means that the signal with the number (value - 128) ended it. Null
    without a command."""
    environment: PowerEnvironment
    """The machine on which the energy was measured."""
    created: str
    """Time at which the record was written, ISO 8601, UTC."""


class SavedPowerRecord(PowerRecord):
    """A power record that was read from a file, for `toolchain report`."""

    file: str
    """Path of the file that the record was read from; not in the file itself."""
