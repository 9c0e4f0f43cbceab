"""The search of `toolchain tune` for GEMMs to exclude from INT8: what it prints, and `results/tune/tune.json`."""

from typing import NotRequired, TypedDict

from toolchain.records.calibration import KeptRecord
from toolchain.records.quantization import SensitivityRecord


class TuneFiles(TypedDict):
    """Paths of the files that `toolchain tune` wrote."""

    recipe: str
    """Path of a recipe that builds the bundle with the GEMMs in `keep` excluded from INT8."""
    record: str
    """Path of this record, tune.json."""
    plot: str
    """Path of an SVG plot of the GEMMs' effects and of the sets that were tried."""


class TuneRecord(TypedDict):
    """The set of GEMMs to exclude from INT8, and what was measured to find it."""

    bundle: str
    """Path of the bundle."""
    max_drop_points: float
    """Largest drop of the task's metric that is allowed, in points (1/100)."""
    enough: bool
    """Whether a set was found whose expected drop is at most `max_drop_points`."""
    keep: list[str]
    """Names of the GEMMs to exclude from INT8: the best set that was found."""
    keep_share_of_macs: float
    """Fraction of the encoder's multiply-accumulate operations that are in the GEMMs in `keep`, 0 to 1."""
    expected_drop_points: float
    """Expected drop of the task's metric with the GEMMs in `keep` excluded from INT8, in points (1/100)."""
    residual: KeptRecord | None
    """The result for the same set when residual additions also read INT8; null if the expected drop is then too large,
    or if the budget did not suffice to try it."""
    evaluations: int
    """Number of graphs that were evaluated, including those that an interrupted search had evaluated before."""
    rows: int
    """Number of train rows from which the hold-out rows were chosen."""
    products: list[SensitivityRecord]
    """Every GEMM of the encoder, with the error that it causes in INT8, in graph order."""
    sets: list[KeptRecord]
    """The sets of GEMMs that were tried, in the order in which they were tried."""
    files: NotRequired[TuneFiles]
    """Paths of the files that were written. Only in the printed record."""
    next: NotRequired[str]
    """Command to run next. Only in the printed record."""


class SavedTuneRecord(TuneRecord):
    """A record of `toolchain tune` that was read from a file, for `toolchain report`."""

    file: str
    """Path of the file that the record was read from; not in the file itself."""
