"""What `toolchain profile` prints: time and energy of one batch by part of the model."""

from typing import Literal, TypedDict

from toolchain.records.result import ArtefactDigest, Environment


class GroupTime(TypedDict):
    """Time of one group of operators."""

    group: str
    """Group: tokenise, copy, embedding, attention, feed_forward, head or other."""
    ms: float
    """Time, ms a call."""
    share: float
    """Share of the call's time."""


class GroupEnergy(TypedDict):
    """Energy of one group of operators, of the remainder, or of the whole call."""

    energy_j: float | None
    """Mean energy over the rounds, J a call."""
    energy_ci95_j: list[float] | None
    """95 % confidence interval of the mean by Student's t, J a call; null with fewer than two rounds."""
    resolved: bool
    """Whether the interval lies above 0."""
    method: str
    """Method: measured, ablation, by_time (a share of the rest by time), or unavailable."""
    reason: str | None
    """Reason code if the energy is null, else null."""


class GroupRecord(GroupTime, GroupEnergy):
    """Time and energy of one group of operators."""


class LayerTime(TypedDict):
    """Time of one node, layer or module."""

    name: str
    """Name of the node, layer or module."""
    group: str
    """Group of operators."""
    layer: int | None
    """Number of the encoder layer, from 0; null outside of the layers."""
    calls: float
    """How often it ran in one call."""
    ms: float
    """Time, ms a call."""


class BatchTokens(TypedDict):
    """Size of the profiled batch."""

    real: int
    """Number of tokens without padding."""
    slots: int
    """Number of padded positions."""
    length: int
    """Length of the longest row, tokens."""
    batch_slots: int
    """Budget of padded positions from which the batch was formed."""


class CallTimes(TypedDict):
    """Times of a call."""

    calls: int
    """Number of profiled calls."""
    wall_ms: float
    """Median time of a call without a profiler, ms."""
    profiled_ms: float
    """Mean time of a profiled call, ms; the times of the groups add up to it."""
    overhead: float
    """`profiled_ms` / `wall_ms` - 1."""
    placed_share: float | None
    """Share of the model's time that belongs to a group; null without any time."""
    clock: str
    """What measured the time: host, cuda_events, onnxruntime_kernels, openvino_kernels, tensorrt_profiler, launches."""


class ProfiledTarget(TypedDict):
    """What was profiled, where and when."""

    schema: Literal[1]
    """Version of this format."""
    model: str
    """Name of the checkpoint."""
    task: str
    """Name of the task."""
    bundle: str | None
    """Path of the bundle; null for a checkpoint."""
    backend: str
    """Backend."""
    device: str
    """Device: cpu or cuda:N."""
    precision: str
    """Number type: `fp32`, `fp16`, `bf16`, `int8` or `fp8`."""
    artefact: ArtefactDigest
    """What ran."""
    nsys_command: str | None
    """Command that records the same under Nsight Systems; null on a CPU."""
    environment: Environment
    """Versions, processor and GPU."""
    created: str
    """Time of the measurement, ISO 8601, UTC."""


class ProfiledBatch(TypedDict):
    """Size and origin of the batch that was profiled."""

    rows: int
    """Rows in the batch."""
    rows_from: str
    """Origin of the rows."""
    tokens: BatchTokens
    """Size of the batch."""


class ProfileResult(ProfiledTarget, ProfiledBatch, CallTimes):
    """A profile of one batch."""

    time_method: Literal["profiler", "ablation"]
    """Whether the times of the model's groups come from a profiler or from differences to ablated graphs."""
    seed: int
    """Seed of the order of the measurements."""
    groups: list[GroupRecord]
    """Groups of operators, in the order of a call."""
    remainder: GroupEnergy
    """Energy that belongs to no group."""
    whole: GroupEnergy
    """Energy of the whole call."""
    layers: list[LayerTime]
    """Nodes, layers or modules in the order in which they ran; empty if `time_method` is ablation."""
    trace: str | None
    """Path of the Chrome trace; null without --trace."""


class NsysRecord(TypedDict):
    """A recording of Nsight Systems, by group (`toolchain profile --nsys`)."""

    file: str
    """Path of the report."""
    calls: int
    """Number of calls in the report."""
    groups: list[GroupTime]
    """Groups of operators with any time, on the host's clock."""
    layers: list[LayerTime]
    """Ranges of the model."""
    not_ours: list[str]
    """Names of NVTX ranges of other programs, which are not counted."""
