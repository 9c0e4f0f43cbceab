"""The record of `toolchain compare --energy`; null means that a value was not measured, and a `reason` says why."""

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
    """How a component is measured on this machine, or why it is not."""

    method: Method
    """Source of its joules."""
    reason: str | None
    """Code of the reason for `unavailable`, or for a device that is missing."""
    detail: str | None
    """The reason as the library worded it."""


class ContenderRecord(TypedDict):
    """One contender of an energy comparison: a bundle on a backend. Keys from `status` on are as in `EnergyBlock`."""

    name: str
    """Name in this comparison."""
    bundle: str
    """Folder of its bundle."""
    backend: str
    """Backend."""
    device: str
    """Device, such as cpu or cuda:0."""
    precision: str
    """Precision."""
    artefact: ArtefactDigest
    """File that ran."""
    batch_slots: int | None
    """Most positions of a batch, padded ones included; null for single rows, or if it did not run."""
    status: Status
    """Whether it was measured."""
    reason: str | None
    """Code of the reason for a status other than `measured`."""
    detail: str | None
    """The same in words."""
    per_inference_j: float | None
    """Joules of one row."""
    per_token_j: float | None
    """Joules of one real token."""
    ci95: list[float] | None
    """95 % interval of `per_inference_j`."""
    throughput_per_s: float | None
    """Rows per second."""
    mean_power_w: float | None
    """Mean power, W."""
    counter_to_integral: float | None
    """Joules of the GPU's counter divided by its integrated power."""
    components: dict[str, ComponentRecord]
    """Component -> its joules and method."""
    windows: list[WindowRecord]
    """One window in each block."""


class Pairing(TypedDict):
    """A candidate compared with the baseline, block by block; ratios are candidate over baseline."""

    verdict: Literal["resolved", "not resolved"]
    """`resolved`: the interval excludes 1 and the difference is at least `mdd_percent`."""
    reason: str | None
    """Code of the reason why the difference is not resolved."""
    blocks: int
    """Blocks in which both were measured."""
    dropped: int
    """Blocks left out because a window in them was dropped."""
    ratio: float | None
    """Geometric mean of the ratios of joules a row."""
    ratio_ci95: list[float] | None
    """Its 95 % interval, a bootstrap over blocks."""
    difference_percent: float | None
    """`ratio` less 1, %."""
    mdd_percent: float | None
    """Minimum detectable difference, %: the smallest true difference that is shown with a probability of 0.8."""
    throughput_ratio: float | None
    """Geometric mean of the ratios of rows per second."""
    mean_power_ratio: float | None
    """Geometric mean of the ratios of power."""


class PairRecord(Pairing):
    """The same, with the names of the two."""

    baseline_name: str
    """Name of the baseline."""
    candidate_name: str
    """Name of the candidate."""


class ComparisonProtocol(TypedDict):
    """How the blocks of a comparison were measured; a block is one window of each contender."""

    mode: Mode
    """`max_throughput`: batches without a pause; `fixed_load`: single rows at a rate."""
    rate_per_s: float | None
    """Rows per second of a fixed load."""
    window_s: float
    """Least length of a window, s."""
    tick_ms: float | None
    """Update period of the slowest counter, ms; null without a counter."""
    warm_up: dict[str, WarmUpRecord | None]
    """Name of a contender -> its warm-up."""


class EnergyComparison(TypedDict):
    """The record of `toolchain compare --energy`."""

    schema: int
    """Version of this format: 1."""
    kind: Literal["energy_comparison"]
    """Kind of record."""
    status: Status
    """Status that all contenders share, else `partial`."""
    reason: str | None
    """Code of the reason of the first contender that was not fully measured."""
    blocks: list[list[str]]
    """Names of the contenders in the order of each block; empty if nothing could be measured."""
    seed: int
    """Seed of the order."""
    contenders: list[ContenderRecord]
    """The contenders, the baseline first."""
    comparisons: list[PairRecord]
    """One entry for each candidate."""
    protocol: ComparisonProtocol
    """How it was measured."""
    context: EnergyContext
    """Limits, clocks, temperatures and other users of the GPUs."""
    flags: list[str]
    """Remarks, in words, that a reader needs before believing the figures."""
    components: dict[str, ComponentMethod]
    """Component -> how this machine measures it."""
    task: str
    """Task."""
    split: str
    """Split that the rows are from."""
    n: int
    """Rows that every contender ran."""
    data_sha256: str
    """Digest of the rows."""
    environment: Environment
    """The machine and its packages, as in a result."""
    created: str
    """Moment of writing, ISO 8601, UTC."""


class SavedEnergyComparison(EnergyComparison):
    """An energy comparison as the command line prints it."""

    file: str
    """File that the record was written to; not in the file itself."""
