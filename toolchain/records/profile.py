"""What `toolchain profile` prints: the time and energy of one batch, by part of the model.

A call processes the batch once, from text to logits. Nodes of the model are assigned to groups, such as `attention`.
Ablation measures a group as the difference between the whole graph and a graph without that group.
"""

from typing import Literal, TypedDict

from toolchain.records.result import ArtefactDigest, Environment


class GroupTime(TypedDict):
    """Time that one group takes in a call."""

    group: str
    """Name of the group: `tokenise`, `copy`, `embedding`, `attention`, `feed_forward`, `head` or `other`."""
    ms: float
    """Time per call, ms."""
    share: float
    """Fraction of the call's time that this group takes, 0 to 1."""


class GroupEnergy(TypedDict):
    """Energy per call: of one group, of the part that was not assigned to any group, or of the whole call."""

    energy_j: float | None
    """Energy per call, J: the mean over the rounds. Null for the reason in `reason`."""
    energy_ci95_j: list[float] | None
    """95 % confidence interval of `energy_j` (Student's t), J; null with fewer than two rounds."""
    resolved: bool
    """Whether the whole interval `energy_ci95_j` is above 0."""
    method: str
    """`measured`; `ablation`; `by_time`: energy that ablation does not explain, divided among the other groups in
    proportion to their time; or `unavailable`."""
    reason: str | None
    """Code of the reason why `energy_j` is null, else null."""


class GroupRecord(GroupTime, GroupEnergy):
    """Time and energy that one group takes in a call."""


class LayerTime(TypedDict):
    """Time of one node, layer or module, depending on what the backend's profiler times."""

    name: str
    """Name of the node, layer or module."""
    group: str
    """Name of the group that the node, layer or module belongs to."""
    layer: int | None
    """Index of the encoder layer, from 0; null outside the encoder layers."""
    calls: float
    """How often it ran per call of the model."""
    ms: float
    """Time per call of the model, ms."""


class BatchTokens(TypedDict):
    """Size of the batch that was profiled."""

    real: int
    """Number of real tokens, without padding."""
    slots: int
    """Number of positions, padding included: rows times tokens of the longest row."""
    length: int
    """Number of tokens of the longest row."""
    batch_slots: int
    """Largest number of positions, padding included, that a batch was allowed to have when the batches were formed."""


class CallTimes(TypedDict):
    """Time of a call, with and without the profiler."""

    calls: int
    """Number of calls that were profiled."""
    wall_ms: float
    """Median time of a call without a profiler, ms."""
    profiled_ms: float
    """Mean time of a call with the profiler, ms. The times of the groups add up to it."""
    overhead: float
    """Relative overhead of the profiler: `profiled_ms` / `wall_ms` - 1."""
    placed_share: float | None
    """Fraction of the model's time that could be assigned to a group other than `other`, 0 to 1; null if no time was
    measured."""
    clock: str
    """What measured the times: `host`, `cuda_events`, `onnxruntime_kernels`, `openvino_kernels`, `tensorrt_profiler`,
    or `launches` (of kernels, on the host)."""


class ProfiledTarget(TypedDict):
    """The model, the backend and the machine that were profiled."""

    schema: Literal[1]
    """Version of this format."""
    model: str
    """Name of the checkpoint."""
    task: str
    """Name of the task."""
    bundle: str | None
    """Path of the bundle; null if a checkpoint was profiled."""
    backend: str
    """Backend that ran the model."""
    device: str
    """Device: `cpu` or `cuda:N`."""
    precision: str
    """Precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`."""
    artefact: ArtefactDigest
    """The file that ran, and its digest."""
    nsys_command: str | None
    """Shell command that records the same profile with Nsight Systems; null on a CPU."""
    environment: Environment
    """Library versions, processor and GPU."""
    created: str
    """Time of the measurement, ISO 8601, UTC."""


class ProfiledBatch(TypedDict):
    """The batch that was profiled."""

    rows: int
    """Number of rows in the batch."""
    rows_from: str
    """Where the rows are from, in words: a split of the task, or built-in sentences."""
    tokens: BatchTokens
    """Number of tokens and positions in the batch."""


class ProfileResult(ProfiledTarget, ProfiledBatch, CallTimes):
    """The profile of one batch: time and energy of the groups, and time of the layers."""

    time_method: Literal["profiler", "ablation"]
    """Where the times of the model's groups come from: `profiler`, or `ablation` where the backend's profiler does not
    time kernels."""
    seed: int
    """Seed of the random order of the measurements."""
    groups: list[GroupRecord]
    """The groups, in the order in which they run."""
    remainder: GroupEnergy
    """Energy of the call that was not assigned to any group."""
    whole: GroupEnergy
    """Energy of the whole call."""
    layers: list[LayerTime]
    """Nodes, layers or modules in the order in which they ran; empty if `time_method` is `ablation`."""
    trace: str | None
    """Path of the Chrome trace file; null without `--trace`."""


class NsysRecord(TypedDict):
    """Times by group from a recording of Nsight Systems (`toolchain profile --nsys`)."""

    file: str
    """Path of the recording or of its CSV report."""
    calls: int
    """Number of calls in the recording."""
    groups: list[GroupTime]
    """Groups that took any time. Times are those of the host: kernels may end later."""
    layers: list[LayerTime]
    """The NVTX ranges of the model's layers, with their times."""
    not_ours: list[str]
    """Names of NVTX ranges that this toolchain did not write; their times are not counted."""
