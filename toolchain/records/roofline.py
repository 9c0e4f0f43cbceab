"""The `roofline` block of a result, and what `toolchain estimate` prints.

A ceiling is the highest number of operations and of bytes per second that a device can reach, measured or from a data
sheet. An operation is one multiplication or one addition in a GEMM; nothing else is counted.
"""

from typing import Literal, TypedDict

Bound = Literal["compute", "memory"]


class CeilingRecord(TypedDict):
    """The highest compute rate and memory bandwidth of a device, to compare a run with."""

    method: Literal["measured", "datasheet"]
    """Source of the ceiling: `measured` on this machine, or the `datasheet` of the GPU."""
    flop_per_s: dict[str, float]
    """Precision -> highest number of operations per second."""
    bytes_per_s: float
    """Highest memory bandwidth, bytes/s."""


class Utilisation(TypedDict):
    """What fraction of a device's ceiling a run reached."""

    ceiling_flop_per_s: float
    """Operations per second at the ceiling, for the mix of precisions in the graph."""
    model_flop_utilisation: float
    """Time that the run's useful operations take at the ceiling, divided by the time of the run."""
    bandwidth_utilisation: float
    """Time that the run's least memory traffic takes at the ceiling, divided by the time of the run."""
    bound: Bound
    """What takes longer at the ceiling: the operations (`compute`) or the memory traffic (`memory`)."""


class SheetUtilisation(Utilisation):
    """What fraction of its GPU's peak rates, as the data sheet states them, a run reached."""

    gpu: str
    """Name of the GPU."""
    source: str
    """Title of the data sheet."""


class RooflineBlock(TypedDict):
    """The `roofline` block of a result.

    Values that are not known are null, and `reason` says why. The time of a run is that of the runtime alone, without
    tokenization.
    """

    flop_per_row_mean: float | None
    """Mean number of useful operations per row."""
    useful_flop: float | None
    """Number of operations in GEMMs for the real tokens of all rows."""
    executed_flop: float | None
    """Number of operations in GEMMs for all positions of the batches, padding included."""
    achieved_flop_per_s: float | None
    """Useful operations per second of the run."""
    ceiling_flop_per_s: float | None
    """Operations per second at the ceiling, for the mix of precisions in the graph."""
    model_flop_utilisation: float | None
    """Time that the useful operations take at the ceiling, divided by the time of the run."""
    bytes_lower_bound: int | None
    """Least memory traffic, bytes: all weights once per batch, token ids and logits."""
    bandwidth_utilisation: float | None
    """Time that the least memory traffic takes at the ceiling, divided by the time of the run."""
    bound: Bound | None
    """What takes longer at the ceiling: the operations (`compute`) or the memory traffic (`memory`)."""
    ceiling: CeilingRecord | None
    """The ceiling that the run was compared with."""
    datasheet: SheetUtilisation | None
    """The run compared with the data sheet of its GPU; null on a CPU or without a data sheet."""
    reason: Literal["no_graph", "not_counted", "not_measured"] | None
    """Code of the reason why values are null: `no_graph`, a checkpoint ran; `not_counted`, the graph's operations
    cannot be counted; `not_measured`, there is no ceiling."""
    detail: str | None
    """Message of the error that led to `reason`; null if there was none."""


class PredictedGpu(TypedDict):
    """The GPU that the bounds are estimated for."""

    name: str
    """Name of the GPU."""
    source: str
    """Title of the GPU's data sheet."""
    tdp_w: float
    """Power limit of the board (TDP), W."""
    idle_w: float | None
    """Idle power as given with `--idle-power`, W; null if it was not given."""


# Functional syntax because the key `from` is a Python keyword.
RowLength = TypedDict(
    "RowLength",
    {
        # Number of tokens in each row.
        "tokens": int,
        # Where the length comes from, in words, such as `mean of 872 validation rows`.
        "from": str,
    },
)
RowLength.__doc__ = "The assumed length of the rows."


class BatchBound(TypedDict):
    """Estimated bounds of time, throughput and energy for one batch size."""

    batch: int
    """Number of rows in the batch."""
    length: int
    """Number of tokens in each row."""
    flop: float
    """Number of operations in GEMMs."""
    bytes_lower_bound: int
    """Least memory traffic, bytes: token ids, logits, and the weights that do not fit into the L2 cache."""
    compute_ms: float
    """Time of the operations at the GPU's peak, ms."""
    memory_ms: float
    """Time of the least memory traffic at the GPU's peak bandwidth, ms."""
    time_ms: float
    """Lower bound of the time of the batch, ms: the longer of `compute_ms` and `memory_ms`."""
    kernels_ms: float | None
    """Estimated time of the kernels that TensorRT-RTX compiles the graph to, ms: for each kernel, the longer of its
    operations and its memory traffic at the GPU's peaks. All traffic counts, so that a run may be faster if the L2
    cache holds a part of it. Null if the kernels are not known."""
    bound: Bound
    """What takes longer: the operations (`compute`) or the memory traffic (`memory`)."""
    rows_per_s: float
    """Upper bound of the throughput, rows/s."""
    mj_per_row_at_least: float | None
    """Lower bound of the energy, mJ per row: idle power times `time_ms`. Null if the idle power was not given."""
    mj_per_row_at_most_at_this_speed: float
    """Power limit times `time_ms`, mJ per row. A run that is as fast as `time_ms` needs at most this energy; a slower
    run may need more."""


class EstimatedBounds(TypedDict):
    """What `toolchain estimate` prints: bounds from a GPU's data sheet."""

    kind: str
    """A reminder that the values are bounds and not measurements."""
    bundle: str
    """Path of the bundle."""
    artefact: str
    """File name of the graph whose operations were counted."""
    precision: str
    """Precision that the bounds are computed for."""
    gpu: PredictedGpu
    """The GPU that the bounds are estimated for."""
    length: RowLength
    """Assumed length of the rows."""
    kernels_reason: str | None
    """Why `kernels_ms` is null; null if it is known."""
    bounds: list[BatchBound]
    """Bounds for each batch size."""
    at_least_reason: str | None
    """Code of the reason why `mj_per_row_at_least` is null; null if it is known."""
