"""Energy: the `energy` block of a result.

Joules, watts and seconds are floats; null means that a value was not measured, and a `reason` beside it says why. A
reason is a code such as `no_nvml_library`; `toolchain.energy.text.REASONS` has its text. Components are `gpu_board`,
`gpu_memory`, `cpu_package` and `cpu_dram`.
"""

from typing import Literal, NotRequired, TypedDict

Status = Literal["measured", "partial", "unavailable"]
Method = Literal["nvml_counter", "nvml_power_integral", "rapl", "unavailable"]
Mode = Literal["max_throughput", "fixed_load"]


class DeviceJoules(TypedDict):
    """The joules of one device of a component."""

    device: str
    """UUID of a GPU, or name of a RAPL zone."""
    joules: float
    """Joules of this device."""


class ComponentRecord(TypedDict):
    """One component: its joules and how they were measured, or null and the reason."""

    joules: float | None
    """Joules of all its devices together, over the accepted windows."""
    method: Method
    """Source of the joules: the GPU's energy counter, its integrated power, or RAPL."""
    reason: str | None
    """Code of the reason for null."""
    detail: str | None
    """The reason as the library worded it, or the devices that are missing."""
    counted: bool
    """Whether the component is in the total: the backend uses it, and it is not part of another component."""
    devices: list[DeviceJoules]
    """Joules by device; empty where nothing was measured."""
    part_of: NotRequired[str | None]
    """Component that contains this one (`gpu_memory` is part of `gpu_board`), else null."""
    tick_ms: NotRequired[float | None]
    """Update period of the counter, ms; null of a power sensor."""
    mean_power_w: NotRequired[float]
    """Joules divided by seconds, W."""
    peak_power_w: NotRequired[float | None]
    """Highest power that was read, W."""
    integral_j: NotRequired[float | None]
    """`gpu_board` only: power integrated over the same windows, J; null without a counter to compare it with."""
    counter_to_integral: NotRequired[float | None]
    """`gpu_board` only: joules of the counter divided by those of the integral."""
    edge_error_j: NotRequired[float]
    """`toolchain power` only: the largest error that the ends of the interval can cause, J."""


class Temperatures(TypedDict):
    """Temperatures of a GPU over an interval, degrees Celsius."""

    first: int | None
    """First reading."""
    last: int | None
    """Last reading."""
    max: int | None
    """Highest reading."""


class Clocks(TypedDict):
    """A clock of a GPU over an interval, MHz."""

    median: float | None
    """Median of the readings."""
    min: float | None
    """Lowest reading."""
    max: float | None
    """Highest reading."""


class GpuStates(TypedDict):
    """States of a GPU over an interval, from about one reading a second."""

    states: int
    """Number of readings."""
    temperature_c: Temperatures
    """Temperatures, degrees Celsius."""
    sm_clock_mhz: Clocks
    """Clock of the streaming multiprocessors, MHz."""
    memory_clock_mhz: Clocks
    """Clock of the memory, MHz."""
    p_states: list[int] | None
    """Performance states that were seen (0 is the fastest), sorted."""
    throttled: dict[str, float | None]
    """Cause of lower clocks -> share of the readings, 0 to 1, in which it held. Several can hold at once."""


class GpuDescription(TypedDict):
    """Properties of a GPU that do not change during a run; null where NVML does not report one.

    If the GPU was lost, only `name`, `uuid` and `reason` are present.
    """

    name: str
    """Product name."""
    uuid: str
    """UUID."""
    index: NotRequired[int]
    """NVML's index, in the order of the PCI bus."""
    architecture: NotRequired[str | None]
    """Architecture, such as `turing`."""
    power_limit_w: NotRequired[float | None]
    """Enforced power limit, W."""
    power_limit_range_w: NotRequired[list[float] | None]
    """Lowest and highest power limit that can be set, W."""
    power_limit_default_w: NotRequired[float | None]
    """Default power limit, W."""
    sm_clock_max_mhz: NotRequired[int | None]
    """Highest clock of the streaming multiprocessors, MHz."""
    memory_clock_max_mhz: NotRequired[int | None]
    """Highest clock of the memory, MHz."""
    persistence: NotRequired[bool | None]
    """Whether persistence mode is on."""
    ecc: NotRequired[bool | None]
    """Whether the memory's error correction is on."""
    mig: NotRequired[bool | None]
    """Whether the GPU is divided into MIG slices."""
    superchip: NotRequired[bool | None]
    """Whether GPU and processor are one module, such as Grace Hopper, whose counter may be the module's."""
    reason: NotRequired[str]
    """Code of the reason why the GPU could not be described."""


class GpuContext(GpuDescription, GpuStates):
    """A GPU during all readings of the meter: limits, clocks, temperature and other users."""

    other_processes: list[int] | None
    """Numbers of other processes that compute on the GPU; null where the driver does not report them."""


class EnergyContext(TypedDict):
    """Conditions of a measurement."""

    gpus: list[GpuContext]
    """One entry for each GPU that is measured."""


class WindowRecord(TypedDict):
    """One measurement window and the work done in it. A call that an edge cuts counts with its share."""

    number: int
    """Number of the window, from 0."""
    accepted: bool
    """Whether every component that is in the total has joules in it."""
    reason: str | None
    """Code of the reason why the window was dropped."""
    seconds: float
    """Length, s."""
    joules: dict[str, float | None]
    """Component -> joules."""
    total_j: float | None
    """Joules of the components that are in the total."""
    per_inference_j: float | None
    """Joules of one row."""
    inferences: float
    """Rows."""
    tokens: float
    """Real tokens (attention mask 1)."""
    slots: float
    """Positions computed, padded ones included."""
    calls: float
    """Calls of the runtime."""
    mean_power_w: float | None
    """Total joules divided by seconds, W."""
    integral_j: dict[str, float]
    """UUID of a GPU -> its integrated power, J."""
    peak_power_w: dict[str, float]
    """UUID of a GPU -> highest power read, W."""
    gpu_states: dict[str, GpuStates]
    """UUID of a GPU -> its states during the window."""


class NetEnergy(TypedDict):
    """Energy above that of the idle machine with the model loaded."""

    baseline: Literal["hot_idle"]
    """Idle state that was subtracted: model loaded, clocks up, no work."""
    idle_power_w: float | None
    """Power of that state, W."""
    per_inference_j: float | None
    """Joules of one row above idle."""
    reason: str | None
    """Code of the reason for null."""


class CarbonRecord(TypedDict):
    """CO2 by the intensity and the PUE that the user gave."""

    intensity_g_per_kwh: float
    """Grams of CO2 a kWh, as given."""
    pue: float
    """Power usage effectiveness of the site, as given."""
    total_g: float
    """Grams of the whole measurement."""
    per_inference_g: float
    """Grams of one row."""


class Uncertainty(TypedDict):
    """Sources of error."""

    statistical: str
    """How `ci95` was made, and from how many windows."""
    systematic: dict[str, float]
    """Component -> relative error of its sensor, which no number of windows shows."""


class WarmUpRecord(TypedDict):
    """The warm-up before the measured windows."""

    seconds: float
    """Length, s."""
    steady: bool
    """Whether throughput, temperature and clocks were steady at its end."""


class IdleRecord(TypedDict):
    """Idle power by component, W; a component that was not measured is absent."""

    gpu_board: NotRequired[float]
    """Power of the boards, W."""
    gpu_memory: NotRequired[float]
    """Power of the GPUs' memory, W."""
    cpu_package: NotRequired[float]
    """Power of the processor packages, W."""
    cpu_dram: NotRequired[float]
    """Power of the main memory, W."""
    flat: bool
    """Whether the two halves of the idle window agreed within 5 %."""


class ProtocolRecord(TypedDict):
    """How the windows of a result were measured."""

    window_s: float
    """Least length of a window, s."""
    windows: int
    """Windows asked for."""
    seed: int
    """Seed of the row order and of the windows' starts."""
    tick_ms: float | None
    """Update period of the slowest counter, ms; null without a counter."""
    warm_up: WarmUpRecord | None
    """The warm-up."""
    idle_w: dict[str, IdleRecord | None]
    """`cold` (nothing loaded), `hot_before` and `hot_after` (model loaded) -> idle power."""


class Figures(TypedDict):
    """Figures over the accepted windows; null where nothing was measured."""

    window_s: float | None
    """Length of the accepted windows together, s."""
    inferences: float | None
    """Rows in them."""
    total_j: float | None
    """Joules of the components that are in the total."""
    per_inference_j: float | None
    """Joules of one row."""
    per_token_j: float | None
    """Joules of one real token (attention mask 1)."""
    per_slot_j: float | None
    """Joules of one position computed, padded ones included."""
    per_correct_j: float | None
    """Joules of one row that was predicted right."""
    throughput_per_s: float | None
    """Rows per second."""
    mean_power_w: float | None
    """Total joules divided by seconds, W."""
    peak_power_w: float | None
    """Highest power read, W; only if the board alone is in the total."""
    energy_delay_product_js: float | None
    """Joules of one row times seconds of one row."""
    counter_to_integral: float | None
    """Joules of the GPU's counter divided by its integrated power."""
    ci95: list[float] | None
    """95 % interval of `per_inference_j`, a bootstrap over windows; null with fewer than 5."""
    range: list[float] | None
    """Lowest and highest `per_inference_j` of a window."""
    net: NetEnergy | None
    """Energy above idle."""
    carbon: CarbonRecord | None
    """CO2, if an intensity was given."""


class EnergyBlock(Figures):
    """The `energy` block of a result. The keys that may be absent are those of a run that was measured."""

    status: Status
    """`measured`; `partial`: a component that the backend uses is missing; `unavailable`: there are no figures."""
    reason: str | None
    """Code of the reason for a status other than `measured`."""
    detail: str | None
    """The same in words."""
    components: dict[str, ComponentRecord]
    """Component -> its joules and method."""
    windows: list[WindowRecord]
    """Every window, dropped ones included."""
    mode: NotRequired[Mode]
    """`max_throughput`: batches without a pause; `fixed_load`: single rows at a rate."""
    rate_per_s: NotRequired[float | None]
    """Rows per second of a fixed load."""
    windows_dropped: NotRequired[int]
    """Windows that were not accepted."""
    uncertainty: NotRequired[Uncertainty]
    """Sources of error."""
    protocol: NotRequired[ProtocolRecord]
    """How it was measured."""
    context: NotRequired[EnergyContext]
    """Limits, clocks, temperatures and other users of the GPUs."""
    flags: NotRequired[list[str]]
    """Remarks, in words, that a reader needs before believing the figures."""
    by_batch_size: NotRequired[list["BatchSizeEnergy"]]
    """The same for each batch size that was asked for."""


class BatchSizeEnergy(EnergyBlock):
    """The energy block of one batch size."""

    batch_size: int
    """Rows in a batch."""
