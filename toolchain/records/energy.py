"""Energy: the `energy` block of a result.

Joules, watts and seconds are floats. Null means that a value was not measured; a `reason` beside it says why. A reason
is a code such as `no_nvml_library`, and `toolchain.energy.text.REASONS` has its text. Energy is measured by component:
`gpu_board`, `gpu_memory`, `cpu_package` and `cpu_dram`. The total adds up the components that the backend uses. It is
measured in windows; an accepted window is one in which all of these components were read.
"""

from typing import Literal, NotRequired, TypedDict

Status = Literal["measured", "partial", "unavailable"]
Method = Literal["nvml_counter", "nvml_power_integral", "rapl", "unavailable"]
Mode = Literal["max_throughput", "fixed_load"]


class DeviceJoules(TypedDict):
    """Energy of one device of a component, such as one of two GPUs."""

    device: str
    """UUID of the GPU, or name of the RAPL zone."""
    joules: float
    """Energy of this device over the accepted windows, J."""


class ComponentRecord(TypedDict):
    """Energy of one component and how it was measured, or the reason why it was not."""

    joules: float | None
    """Energy of all devices of the component over the accepted windows, J; null if it was not measured."""
    method: Method
    """Source of the energy: the GPU's energy counter, the GPU's power integrated over time, or RAPL."""
    reason: str | None
    """Code of the reason why `joules` is null, else null."""
    detail: str | None
    """The reason in the words of the library that reported it, or which devices are missing in `joules`."""
    counted: bool
    """Whether the component is in the total: the backend uses it, and it is not part of another component in the
    total."""
    devices: list[DeviceJoules]
    """Energy of each device; empty if nothing was measured."""
    part_of: NotRequired[str | None]
    """Component that includes this one (`gpu_board` for `gpu_memory`), else null."""
    tick_ms: NotRequired[float | None]
    """Time between two updates of the energy counter, ms; null for a power sensor."""
    mean_power_w: NotRequired[float]
    """Mean power over the accepted windows, W."""
    peak_power_w: NotRequired[float | None]
    """Highest power that was read, W; null if power was not read."""
    integral_j: NotRequired[float | None]
    """Power integrated over the same windows, J, to check the energy counter. Only for `gpu_board`; null if the board
    has no counter."""
    counter_to_integral: NotRequired[float | None]
    """Energy by the counter divided by `integral_j`; about 1 if both agree. Only for `gpu_board`."""
    edge_error_j: NotRequired[float]
    """Largest error of `joules` that can arise because the interval starts and ends between two updates of the source,
    J. Only from `toolchain power`."""


class Temperatures(TypedDict):
    """Temperatures of a GPU during an interval, in degrees Celsius; null if they were not read."""

    first: int | None
    """First reading of the interval, °C."""
    last: int | None
    """Last reading of the interval, °C."""
    max: int | None
    """Highest reading of the interval, °C."""


class Clocks(TypedDict):
    """Frequencies of one clock of a GPU during an interval, in MHz; null if they were not read."""

    median: float | None
    """Median of the readings, MHz."""
    min: float | None
    """Lowest reading, MHz."""
    max: float | None
    """Highest reading, MHz."""


class GpuStates(TypedDict):
    """Temperature, clocks and throttling of a GPU during an interval, read about once a second."""

    states: int
    """Number of times that the GPU was read."""
    temperature_c: Temperatures
    """Temperatures, degrees Celsius."""
    sm_clock_mhz: Clocks
    """Clock of the streaming multiprocessors (SMs), MHz."""
    memory_clock_mhz: Clocks
    """Memory clock, MHz."""
    p_states: list[int] | None
    """Performance states that the GPU was in, sorted (0 is the fastest); null if they were not read."""
    throttled: dict[str, float | None]
    """Cause of a lowered clock, such as the power limit -> fraction of the readings in which it applied, 0 to 1.
    Several causes can apply at once. Null if the cause was not read."""


class GpuDescription(TypedDict):
    """Properties of a GPU that do not change during a run; null for those that NVML does not report.

    If the GPU stopped responding, only `name`, `uuid` and `reason` are present.
    """

    name: str
    """Product name of the GPU."""
    uuid: str
    """UUID of the GPU."""
    index: NotRequired[int]
    """Index of the GPU in NVML, which counts in the order of the PCI bus."""
    architecture: NotRequired[str | None]
    """Architecture, such as `turing`."""
    power_limit_w: NotRequired[float | None]
    """Power limit that is in force, W."""
    power_limit_range_w: NotRequired[list[float] | None]
    """Lowest and highest power limit that can be set, W."""
    power_limit_default_w: NotRequired[float | None]
    """Power limit by default, W."""
    sm_clock_max_mhz: NotRequired[int | None]
    """Highest clock of the streaming multiprocessors (SMs), MHz."""
    memory_clock_max_mhz: NotRequired[int | None]
    """Highest memory clock, MHz."""
    persistence: NotRequired[bool | None]
    """Whether persistence mode is on."""
    ecc: NotRequired[bool | None]
    """Whether error correction (ECC) of the memory is on."""
    mig: NotRequired[bool | None]
    """Whether the GPU is divided into MIG slices."""
    superchip: NotRequired[bool | None]
    """Whether GPU and CPU share one module, as in Grace Hopper. The energy counter may then be that of the whole
    module."""
    reason: NotRequired[str]
    """Code of the reason why the GPU could not be described."""


class GpuContext(GpuDescription, GpuStates):
    """A GPU during the whole measurement: its properties, its states, and other processes on it."""

    other_processes: list[int] | None
    """Process ids of other processes that compute on the GPU; null if the driver does not report them."""


class EnergyContext(TypedDict):
    """The conditions under which the energy was measured."""

    gpus: list[GpuContext]
    """One entry for each GPU whose energy is measured."""


class WindowRecord(TypedDict):
    """One measurement window and the work done in it.

    A call that runs over the start or the end of the window is counted in proportion to its time inside the window. So
    rows, tokens and calls can be fractional.
    """

    number: int
    """Index of the window, from 0."""
    accepted: bool
    """Whether the energy of every component in the total was measured in this window."""
    reason: str | None
    """Code of the reason why the window was not accepted, else null."""
    seconds: float
    """Length of the window, s."""
    joules: dict[str, float | None]
    """Component -> its energy in this window, J; null if it was not measured."""
    total_j: float | None
    """Energy of the components in the total, J; null if the window was not accepted."""
    per_inference_j: float | None
    """Energy per row, J."""
    inferences: float
    """Number of rows that were processed."""
    tokens: float
    """Number of real tokens (attention mask 1)."""
    slots: float
    """Number of positions that were computed, padding included."""
    calls: float
    """Number of calls of the runtime."""
    mean_power_w: float | None
    """`total_j` divided by `seconds`, W."""
    integral_j: dict[str, float]
    """UUID of a GPU -> its power integrated over the window, J."""
    peak_power_w: dict[str, float]
    """UUID of a GPU -> highest power that was read, W."""
    gpu_states: dict[str, GpuStates]
    """UUID of a GPU -> its temperature, clocks and throttling during the window."""


class NetEnergy(TypedDict):
    """Energy above idle: the measured energy minus that of the idle machine in the same time."""

    baseline: Literal["hot_idle"]
    """The idle state whose power was subtracted. `hot_idle`: the model is loaded, clocks are up, and no work is
    done."""
    idle_power_w: float | None
    """Power in this idle state, W; null if it was not measured or changed during the run."""
    per_inference_j: float | None
    """Energy per row above idle, J; null for the reason in `reason`."""
    reason: str | None
    """Code of the reason why `per_inference_j` is null, else null."""


class CarbonRecord(TypedDict):
    """CO2 emissions, from the measured energy and the carbon intensity and PUE that the user gave."""

    intensity_g_per_kwh: float
    """Carbon intensity of the electricity, grams of CO2 per kWh, as the user gave it."""
    pue: float
    """Power usage effectiveness of the data centre, as the user gave it."""
    total_g: float
    """Grams of CO2 for all accepted windows."""
    per_inference_g: float
    """Grams of CO2 per row."""


class Uncertainty(TypedDict):
    """The sources of error in the energy figures."""

    statistical: str
    """How `ci95` was computed, and from how many windows, in words."""
    systematic: dict[str, float]
    """Component -> relative error of its sensor, such as 0.05. More windows do not reduce it."""


class WarmUpRecord(TypedDict):
    """The warm-up before the measurement windows."""

    seconds: float
    """Length of the warm-up, s."""
    steady: bool
    """Whether throughput, temperature and clocks were steady at the end of the warm-up."""


class IdleRecord(TypedDict):
    """Idle power of each component, W; components that were not measured are absent."""

    gpu_board: NotRequired[float]
    """Power of the GPU boards, W."""
    gpu_memory: NotRequired[float]
    """Power of the GPU memory, W."""
    cpu_package: NotRequired[float]
    """Power of the CPU packages, W."""
    cpu_dram: NotRequired[float]
    """Power of the main memory, W."""
    flat: bool
    """Whether the first and the second half of the idle window agree within 5 %."""


class ProtocolRecord(TypedDict):
    """The settings of an energy measurement, with its warm-up and idle power."""

    window_s: float
    """Shortest length of a window, s."""
    windows: int
    """Number of windows that were asked for."""
    seed: int
    """Seed of the order of the rows and of the starting times of the windows."""
    tick_ms: float | None
    """Time between two updates of the slowest energy counter, ms; null if there is no counter."""
    warm_up: WarmUpRecord | None
    """The warm-up; null if there was none."""
    idle_w: dict[str, IdleRecord | None]
    """`cold` (model not loaded), `hot_before` and `hot_after` (model loaded, before and after the windows) -> idle
    power; null if it was not measured."""


class Figures(TypedDict):
    """Energy, throughput and power over all accepted windows; null where nothing was measured."""

    window_s: float | None
    """Total length of the accepted windows, s."""
    inferences: float | None
    """Number of rows in the accepted windows."""
    total_j: float | None
    """Energy of the components in the total, J."""
    per_inference_j: float | None
    """Energy per row, J."""
    per_token_j: float | None
    """Energy per real token (attention mask 1), J."""
    per_slot_j: float | None
    """Energy per position that was computed, padding included, J."""
    per_correct_j: float | None
    """Energy per row that was predicted correctly, J: `per_inference_j` divided by the accuracy. Null for a
    regression."""
    throughput_per_s: float | None
    """Rows per second."""
    mean_power_w: float | None
    """`total_j` divided by `window_s`, W."""
    peak_power_w: float | None
    """Highest power that was read, W. Null unless `gpu_board` is the only component in the total."""
    energy_delay_product_js: float | None
    """Energy-delay product, J s: energy per row times seconds per row."""
    counter_to_integral: float | None
    """Energy by the GPU's counter divided by the GPU's power integrated over time; about 1 if both agree."""
    ci95: list[float] | None
    """95 % confidence interval of `per_inference_j`, by a bootstrap over the windows; null with fewer than 5
    windows."""
    range: list[float] | None
    """Lowest and highest `per_inference_j` of a single window."""
    net: NetEnergy | None
    """Energy above idle."""
    carbon: CarbonRecord | None
    """CO2 emissions; null if no carbon intensity was given."""


class EnergyBlock(Figures):
    """The `energy` block of a result.

    Keys that may be missing are absent if no measurement was run.
    """

    status: Status
    """`measured`; `partial`: the total lacks a component that the backend uses; `unavailable`: no energy was
    measured."""
    reason: str | None
    """Code of the reason if `status` is not `measured`, else null."""
    detail: str | None
    """More about the reason, in words."""
    components: dict[str, ComponentRecord]
    """Component -> its energy, and how it was measured."""
    windows: list[WindowRecord]
    """Every measurement window, also those that were not accepted."""
    mode: NotRequired[Mode]
    """`max_throughput`: batches without a pause between them; `fixed_load`: single rows at a fixed rate."""
    rate_per_s: NotRequired[float | None]
    """Rows per second in the mode `fixed_load`, else null."""
    windows_dropped: NotRequired[int]
    """Number of windows that were not accepted."""
    uncertainty: NotRequired[Uncertainty]
    """Sources of error."""
    protocol: NotRequired[ProtocolRecord]
    """Settings of the measurement, with its warm-up and idle power."""
    context: NotRequired[EnergyContext]
    """Power limits, clocks, temperatures and other processes of the GPUs during the measurement."""
    flags: NotRequired[list[str]]
    """Remarks, in words, about what makes the figures less reliable."""
    by_batch_size: NotRequired[list["BatchSizeEnergy"]]
    """One energy block for each batch size that was asked for."""


class BatchSizeEnergy(EnergyBlock):
    """The energy block of one batch size."""

    batch_size: int
    """Number of rows in a batch."""
