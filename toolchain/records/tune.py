"""The search of `toolchain tune`: what it prints with --json, and `results/tune/tune.json` of a bundle."""

from typing import NotRequired, TypedDict

from toolchain.records.calibration import KeptRecord
from toolchain.records.quantization import SensitivityRecord


class TuneFiles(TypedDict):
    """Paths of the files that were written."""

    recipe: str
    """A recipe that builds the bundle with the set."""
    record: str
    """This record."""
    plot: str
    """A plot of effects and sets, SVG."""


class TuneRecord(TypedDict):
    """The set of GEMMs to exclude from INT8, and what was measured to find it."""

    bundle: str
    """Path of the bundle."""
    max_drop_points: float
    """The drop that the set must stay within, in points (1/100)."""
    enough: bool
    """Whether a set within the budget is expected to stay within it."""
    keep: list[str]
    """The set: names of the GEMMs to exclude from INT8."""
    keep_share_of_macs: float
    """Their share of all multiply-accumulate operations, 0 to 1."""
    expected_drop_points: float
    """Expected drop of the set, in points (1/100)."""
    residual: KeptRecord | None
    """The set with residual additions in INT8; null if that exceeds the drop, or the budget left none to try it."""
    evaluations: int
    """Graphs that were evaluated, those of an earlier search included."""
    rows: int
    """Train rows that the hold-out rows were chosen from."""
    products: list[SensitivityRecord]
    """Every GEMM of the encoder, in graph order."""
    sets: list[KeptRecord]
    """The sets that were tried, in order."""
    files: NotRequired[TuneFiles]
    """Paths of the files that were written; only in what is printed."""
    next: NotRequired[str]
    """The next command; only in what is printed."""


class SavedTuneRecord(TuneRecord):
    """A record of `tune` that `toolchain report` has read."""

    file: str
    """File that the record was read from; not in the file itself."""
