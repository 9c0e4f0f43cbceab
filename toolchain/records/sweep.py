"""The record of `toolchain sweep`: what it prints with --json, and `sweep.json` in the folder of a sweep.

A cell is one combination of options, which is built and evaluated. A cost is the
quantity that a Pareto front weighs against the metric: energy, latency, throughput or size.
"""

from typing import Literal, NotRequired, TypedDict

# A value of an option.
Option = str | int | float | bool

# `waiting` has not run yet.
State = Literal["done", "failed", "impossible", "waiting"]


class CellRun(TypedDict):
    """The last run of a cell: `run.json` in the folder of the cell."""

    attempts: int
    """How often the cell has been run so far."""
    seconds: float
    """Wall time of the evaluation, in seconds."""
    build_s: float | None
    """Wall time of the build of the cell's bundle, in seconds; null if the bundle already existed."""
    exit_code: int
    """Exit code of the last command of the cell. If a signal killed the command: minus the signal's number."""
    reason: str | None
    """Why the cell failed; null if it did not fail."""
    size_mb: float | None
    """Size of the evaluated file with its external weights, in MB (10^6 bytes); null for a checkpoint or a server."""
    host: NotRequired[str]
    """Name of the machine that ran the cell; only with `--ray`."""


class SweepCell(TypedDict):
    """One cell of the sweep: its options, its state and its last run."""

    key: str
    """SHA-256 of everything that the result depends on: options, digests of model and data, versions, machine."""
    name: str
    """Name of the cell: the values of its options, and the first characters of `key`."""
    options: dict[str, Option]
    """Option name, as in a recipe -> value."""
    bundle: str
    """Folder of the cell's bundle, relative to the folder of the sweep. Cells with the same build options share a
    bundle."""
    state: State
    """`done`; `failed`; `impossible`: this machine cannot run the cell; or `waiting`: it has not run yet."""
    reason: str | None
    """Why the cell failed or is impossible on this machine; null in the other states."""
    result: str | None
    """Path of the cell's result, relative to the folder of the sweep; null if the cell is not done."""
    run: CellRun | None
    """The last run of the cell; null if it has not run."""


class Front(TypedDict):
    """The Pareto front of one task and one cost: the cells that no other cell dominates.

    A cell dominates another cell if its metric is at least as high and its cost at least as good, and one of the two
    differences is resolved (larger than chance explains).
    """

    task: str
    """Name of the task."""
    data_sha256: str
    """SHA-256 of the texts and labels of the evaluated rows, hexadecimal."""
    metric: str
    """Name of the task's main metric."""
    cost: str
    """Name of the cost: `energy`, `latency`, `throughput` or `size`."""
    members: list[str]
    """Names of the cells on the front, the best cost first."""
    unresolved: list[str]
    """Names of cells on the front that another cell beats in metric and cost, but only by differences that are not
    resolved."""
    unmeasured: list[str]
    """Names of the cells that are done but whose cost was not measured."""
    components: NotRequired[list[str] | None]
    """Components whose energy is in the totals, sorted; only for the cost `energy`, else null. Cells with other
    components are on another front."""


class GlueScore(TypedDict):
    """The GLUE score of one backend and variant."""

    name: str
    """Name of the backend and the variant."""
    score: float | None
    """GLUE score: the mean of `points` over all tasks except WNLI. Null unless each of the nine tasks was measured
    exactly once."""
    reason: str | None
    """Why `score` is null; null if there is a score."""
    points: dict[str, float]
    """Name of a task -> 100 times the mean of its metrics."""
    missing: list[str]
    """Names of the GLUE tasks that were not measured."""


class Forecast(TypedDict):
    """How long the remaining cells are expected to take."""

    cells: int
    """Number of cells that are waiting or have failed."""
    builds: int
    """Number of bundles that must be built for these cells."""
    seconds: float | None
    """Expected wall time, in seconds, estimated from the cells that are done; null if no cell is done."""


class SweepRecord(TypedDict):
    """All cells of a sweep, with their states, and the Pareto fronts of their results."""

    schema: int
    """Version of this format: 1."""
    name: str
    """Name of the sweep: the name of its file without the ending."""
    folder: str
    """Folder of the sweep, as it was given."""
    objectives: list[str]
    """Names of the costs for which there are Pareto fronts."""
    cells: list[SweepCell]
    """The cells, in the order of the sweep's file."""
    merged: int
    """Number of combinations that are not cells of their own, because they differ from another cell only in options
    that have no effect on their backend."""
    excluded: int
    """Number of combinations that the sweep's file excludes."""
    fronts: list[Front]
    """One or more Pareto fronts for each task and cost."""
    glue: list[GlueScore]
    """GLUE scores; empty if no GLUE task was evaluated."""
    forecast: Forecast
    """How long the remaining cells are expected to take."""


class SavedSweepRecord(SweepRecord):
    """A record of `toolchain sweep` that was read from a file, for `toolchain report`."""

    file: str
    """Path of the file that the record was read from; not in the file itself."""
