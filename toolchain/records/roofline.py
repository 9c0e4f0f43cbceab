"""The `roofline` block of a result, and what `toolchain estimate` prints."""

from typing import Literal, TypedDict

Bound = Literal["compute", "memory"]


class CeilingRecord(TypedDict):
    """The highest compute and memory rates that a run is compared with."""

    method: Literal["measured", "datasheet"]
    """Origin of the ceiling: measured on this machine, or the data sheet of the GPU."""
    flop_per_s: dict[str, float]
    """Precision -> operations per second."""
    bytes_per_s: float
    """Memory bandwidth, bytes/s."""


class Utilisation(TypedDict):
    """A run against a ceiling."""

    ceiling_flop_per_s: float
    """Operations per second at the ceiling, in the precisions of the graph."""
    model_flop_utilisation: float
    """Share of the run's time that its useful operations take at the ceiling."""
    bandwidth_utilisation: float
    """Share of the run's time that its least memory traffic takes at the ceiling."""
    bound: Bound
    """What takes longer at the ceiling."""


class SheetUtilisation(Utilisation):
    """A run against the data sheet of its GPU."""

    gpu: str
    """Name of the GPU."""
    source: str
    """The data sheet."""


class RooflineBlock(TypedDict):
    """The `roofline` block of a result; values are null with a `reason` where they are unknown."""

    flop_per_row_mean: float | None
    """Mean of the useful operations of a row. A multiplication and an addition are two operations."""
    useful_flop: float | None
    """Operations of the GEMMs for the real tokens of all rows."""
    executed_flop: float | None
    """Operations of the GEMMs for all positions of the padded batches."""
    achieved_flop_per_s: float | None
    """Useful operations per second of the runtime."""
    ceiling_flop_per_s: float | None
    """Operations per second at the ceiling, in the precisions of the graph."""
    model_flop_utilisation: float | None
    """Share of the runtime that the useful operations take at the ceiling."""
    bytes_lower_bound: int | None
    """Least memory traffic, bytes: all weights once a batch, ids and logits."""
    bandwidth_utilisation: float | None
    """Share of the runtime that the least memory traffic takes at the ceiling."""
    bound: Bound | None
    """What takes longer at the ceiling."""
    ceiling: CeilingRecord | None
    """The ceiling."""
    datasheet: SheetUtilisation | None
    """The same run against the data sheet of its GPU; null on a CPU and for an unknown GPU."""
    reason: Literal["no_graph", "not_counted", "not_measured"] | None
    """Why values are null: no graph, an uncountable graph, or no ceiling."""
    detail: str | None
    """Text of the error behind `reason`."""


class PredictedGpu(TypedDict):
    """The GPU of a prediction."""

    name: str
    """Name of the GPU."""
    source: str
    """Data sheet of the GPU."""
    tdp_w: float
    """Power limit of the board, W."""
    idle_w: float | None
    """Idle power, W, if given with --idle-power."""


# Functional syntax because the key `from` is a Python keyword.
RowLength = TypedDict(
    "RowLength",
    {
        # Tokens of each row.
        "tokens": int,
        # Origin of the length.
        "from": str,
    },
)
RowLength.__doc__ = "The length of the rows that are assumed."


class BatchBound(TypedDict):
    """Bounds of one batch size."""

    batch: int
    """Rows in the batch."""
    length: int
    """Tokens of each row."""
    flop: float
    """Operations of the GEMMs."""
    bytes_lower_bound: int
    """Least memory traffic, bytes: ids, logits, and the weights that the level 2 cache does not keep."""
    compute_ms: float
    """Time of the operations at the peak, ms."""
    memory_ms: float
    """Time of the memory traffic at the peak, ms."""
    time_ms: float
    """Lower bound of the time of the batch, ms: the longer of the two."""
    kernels_ms: float | None
    """Time of the kernels that TensorRT-RTX compiles the graph to, ms: of each the longer of its operations and its
    memory traffic, all of which counts. A run may be faster where the level 2 cache keeps a part of it. Null where the
    kernels are not known."""
    bound: Bound
    """What takes longer."""
    rows_per_s: float
    """Upper bound of the throughput, rows/s."""
    mj_per_row_at_least: float | None
    """Lower bound of the energy, mJ a row: idle power times `time_ms`; null without idle power."""
    mj_per_row_at_most_at_this_speed: float
    """Power limit times `time_ms`, mJ a row; an upper bound only for a run at the speed of the bound."""


class EstimatedBounds(TypedDict):
    """What `toolchain estimate` prints."""

    kind: str
    """Reminder that the values are bounds and not measurements."""
    bundle: str
    """Path of the bundle."""
    artefact: str
    """Graph whose work was counted."""
    precision: str
    """Precision of the prediction."""
    gpu: PredictedGpu
    """The GPU."""
    length: RowLength
    """Length of the rows."""
    kernels_reason: str | None
    """Why `kernels_ms` is null; null if it is not."""
    bounds: list[BatchBound]
    """Bounds by batch size."""
    at_least_reason: str | None
    """Why `mj_per_row_at_least` is null."""
