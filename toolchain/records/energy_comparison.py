"""The record of `toolchain compare --energy`, which compares the energy of several bundles or backends.

A contender is a bundle on a backend; the first contender is the baseline, the others are candidates. A block is one
measurement window of each contender, in random order. Null means that a value was not measured; a `reason` beside it
says why.
"""

from typing import Literal, TypedDict

from toolchain.records.energy import (
    ComponentRecord,
    EnergyContext,
    Method,
    Mode,
    Status,
    WarmUpRecord,
    WindowRecord,
)
from toolchain.records.result import ArtefactDigest, Environment


class ComponentMethod(TypedDict):
    """How the energy of a component is measured on this machine, or why it is not."""

    method: Method
    """Source of the energy: the GPU's energy counter, the GPU's power integrated over time, RAPL, or `unavailable`."""
    reason: str | None
    """Code of the reason why the component, or one of its devices, is not measured; null if all of it is measured."""
    detail: str | None
    """The reason in the words of the library that reported it."""


class ContenderRecord(TypedDict):
    """One contender, with its energy figures; the keys from `status` on are as in `EnergyBlock`."""

    name: str
    """Name of the contender in this comparison."""
    bundle: str
    """Folder of the contender's bundle."""
    backend: str
    """Backend that ran the bundle."""
    device: str
    """Device, such as `cpu` or `cuda:0`."""
    precision: str
    """Precision of the model."""
    artefact: ArtefactDigest
    """The file that ran, and its digest."""
    batch_slots: int | None
    """Largest number of positions in a batch, padding included; null for single rows, or if the contender did not
    run."""
    status: Status
    """Whether the energy was measured."""
    reason: str | None
    """Code of the reason if `status` is not `measured`, else null."""
    detail: str | None
    """More about the reason, in words."""
    per_inference_j: float | None
    """Energy per row, J."""
    per_token_j: float | None
    """Energy per real token (attention mask 1), J."""
    ci95: list[float] | None
    """95 % confidence interval of `per_inference_j`."""
    throughput_per_s: float | None
    """Rows per second."""
    mean_power_w: float | None
    """Mean power, W."""
    counter_to_integral: float | None
    """Energy by the GPU's counter divided by the GPU's power integrated over time; about 1 if both agree."""
    components: dict[str, ComponentRecord]
    """Component -> its energy, and how it was measured."""
    windows: list[WindowRecord]
    """The windows of this contender, one in each block."""


class Pairing(TypedDict):
    """Comparison of a candidate with the baseline, block by block. Ratios are candidate divided by baseline."""

    verdict: Literal["resolved", "not resolved"]
    """`resolved`: the confidence interval of `ratio` does not contain 1, and the difference is at least `mdd_percent`;
    else `not resolved`."""
    reason: str | None
    """Code of the reason why the difference is not resolved; null if it is."""
    blocks: int
    """Number of blocks in which both were measured."""
    dropped: int
    """Number of blocks that were left out, because a window in them was not accepted."""
    ratio: float | None
    """Ratio of the energy per row: geometric mean over the blocks. Below 1, the candidate needs less energy."""
    ratio_ci95: list[float] | None
    """95 % confidence interval of `ratio`, by a bootstrap over the blocks."""
    difference_percent: float | None
    """`ratio` minus 1, in percent."""
    mdd_percent: float | None
    """Minimum detectable difference, in percent: the smallest true difference that this number of blocks would show
    with a probability of 0.8."""
    throughput_ratio: float | None
    """Ratio of the rows per second: geometric mean over the blocks."""
    mean_power_ratio: float | None
    """Ratio of the mean power: geometric mean over the blocks."""


class PairRecord(Pairing):
    """Comparison of a candidate with the baseline, with the names of both."""

    baseline_name: str
    """Name of the baseline."""
    candidate_name: str
    """Name of the candidate."""


class ComparisonProtocol(TypedDict):
    """Settings of the measurement of a comparison."""

    mode: Mode
    """`max_throughput`: batches without a pause between them; `fixed_load`: single rows at a fixed rate."""
    rate_per_s: float | None
    """Rows per second in the mode `fixed_load`, else null."""
    window_s: float
    """Shortest length of a window, s."""
    tick_ms: float | None
    """Time between two updates of the slowest energy counter, ms; null if there is no counter."""
    warm_up: dict[str, WarmUpRecord | None]
    """Name of a contender -> its warm-up; null if it did not run."""


class EnergyComparison(TypedDict):
    """The contenders of `toolchain compare --energy`, and each candidate compared with the baseline."""

    schema: int
    """Version of this format: 1."""
    kind: Literal["energy_comparison"]
    """Kind of this record: always `energy_comparison`."""
    status: Status
    """The status that all contenders have; `partial` if they differ."""
    reason: str | None
    """Code of the reason for the first contender that was not fully measured; null if all contenders were."""
    blocks: list[list[str]]
    """For each block, the names of the contenders in the order in which they ran; empty if nothing could be
    measured."""
    seed: int
    """Seed of the random order of the contenders."""
    contenders: list[ContenderRecord]
    """The contenders, the baseline first."""
    comparisons: list[PairRecord]
    """One comparison with the baseline for each candidate."""
    protocol: ComparisonProtocol
    """Settings of the measurement."""
    context: EnergyContext
    """Power limits, clocks, temperatures and other processes of the GPUs during the measurement."""
    flags: list[str]
    """Remarks, in words, about what makes the figures less reliable."""
    components: dict[str, ComponentMethod]
    """Component -> how its energy is measured on this machine."""
    task: str
    """Name of the task that the rows are from."""
    split: str
    """Name of the split that the rows are from."""
    n: int
    """Number of different rows that every contender ran."""
    data_sha256: str
    """SHA-256 of the rows' texts and labels, hexadecimal."""
    environment: Environment
    """Library versions, processor and GPU, as in a result."""
    created: str
    """Time at which the record was written, ISO 8601, UTC."""


class SavedEnergyComparison(EnergyComparison):
    """An energy comparison as the command line prints it."""

    file: str
    """Path of the file that the record was written to. Only in the printed record."""
