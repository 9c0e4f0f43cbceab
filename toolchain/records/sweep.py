"""The record of `toolchain sweep`: what it prints with --json, and `sweep.json` in the folder of a sweep."""

from typing import Literal, NotRequired, TypedDict

# A value of an option.
Option = str | int | float | bool

# `waiting` has not run yet.
State = Literal["done", "failed", "impossible", "waiting"]


class CellRun(TypedDict):
    """What is known of the last run of a cell: `run.json` in its folder."""

    attempts: int
    """How often the cell has run."""
    seconds: float
    """Wall time of its evaluation, of the last run."""
    build_s: float | None
    """Wall time of the build of its bundle, which may take its graph from another one; null if the bundle was there."""
    exit_code: int
    """Exit code of the command that ended the cell; negative: the number of the signal that killed it."""
    reason: str | None
    """Why the cell failed; null if it did not."""
    size_mb: float | None
    """Size of the file that was evaluated, with the weights beside it; null for a checkpoint or a server."""
    host: NotRequired[str]
    """Name of the machine that ran it, with `--ray`."""


class SweepCell(TypedDict):
    """One combination of options."""

    key: str
    """SHA-256 of the options, the digests of model and data, the versions and the machine."""
    name: str
    """Values of the options, and the first characters of the key."""
    options: dict[str, Option]
    """The options by their names in a recipe."""
    bundle: str
    """Folder of its bundle, which several cells may share, below the folder of the sweep."""
    state: State
    """Whether it is done."""
    reason: str | None
    """Why it failed, or why it is impossible on this machine."""
    result: str | None
    """Path of its result below the folder of the sweep; null if it is not done."""
    run: CellRun | None
    """Its last run; null if it has not run."""


class Front(TypedDict):
    """The Pareto front of the results of one task: cells that no other cell dominates.

    A cell dominates another if its metric is as high and its cost as low, and one of both differences is resolved.
    """

    task: str
    """Name of the task."""
    data_sha256: str
    """Digest of the rows that were evaluated."""
    metric: str
    """The task's primary metric."""
    cost: str
    """The cost: `energy`, `latency`, `throughput` or `size`."""
    members: list[str]
    """Names of the cells on the front, by cost."""
    unresolved: list[str]
    """Those of the members that another cell beats in both, by a difference that is not resolved."""
    unmeasured: list[str]
    """Names of the cells that are done, and whose cost was not measured."""
    components: NotRequired[list[str] | None]
    """Components in the totals of an energy front, sorted; cells with others have another front. Else null."""


class GlueScore(TypedDict):
    """The GLUE score of one runtime and variant."""

    name: str
    """Backend and variant."""
    score: float | None
    """Mean of the points of the tasks without WNLI; null unless all nine tasks were measured once."""
    reason: str | None
    """Why there is no score."""
    points: dict[str, float]
    """Task to its points: 100 times the mean of its metrics."""
    missing: list[str]
    """Tasks that were not measured."""


class Forecast(TypedDict):
    """The expected duration of the cells that wait."""

    cells: int
    """Number of cells that wait or failed."""
    builds: int
    """Number of bundles to build for them."""
    seconds: float | None
    """Expected wall time, by the cells that are done; null if none is."""


class SweepRecord(TypedDict):
    """All cells of a sweep, and its Pareto fronts."""

    schema: int
    """Version of this record, 1."""
    name: str
    """Name of the sweep: that of its file."""
    folder: str
    """Folder of the sweep, as it was given."""
    objectives: list[str]
    """The costs of the Pareto fronts."""
    cells: list[SweepCell]
    """The cells, in the order of the file."""
    merged: int
    """Combinations that are left out, because they differ from a cell only in options without effect on its backend."""
    excluded: int
    """Combinations that the file excludes."""
    fronts: list[Front]
    """The Pareto fronts."""
    glue: list[GlueScore]
    """The GLUE scores, if tasks of GLUE were evaluated."""
    forecast: Forecast
    """What is left to do."""


class SavedSweepRecord(SweepRecord):
    """A record of `sweep` that `toolchain report` has read."""

    file: str
    """File that the record was read from; not in the file itself."""
