"""The search of `toolchain tune`: what it prints with --json, and `results/tune/tune.json` of a bundle."""

from typing import NotRequired, TypedDict


class TunedGemm(TypedDict):
    """One GEMM of the encoder, alone in INT8."""

    name: str
    """Name of its node."""
    kind: str
    """`linear` or `attention`."""
    macs: float
    """Its share of all multiply-accumulate operations, 0 to 1."""
    snr_db: float
    """Signal-to-noise ratio at its own output, dB; 150 if there is no noise."""
    effect: float | None
    """Distance of the logits from FP32's; null if it was not measured."""
    drop_points: float | None
    """Expected drop of the task's metric, in points (1/100); null if it was not measured."""


class TriedSet(TypedDict):
    """A set of GEMMs that was excluded from INT8."""

    keep: list[str]
    """Names of the GEMMs in higher precision."""
    macs: float
    """Their share of all multiply-accumulate operations, 0 to 1."""
    expected_drop_points: float
    """Expected drop of the task's metric, in points (1/100)."""
    rms: float
    """Root mean square difference of the logits from FP32's."""
    kl: float | None
    """Mean Kullback-Leibler divergence from FP32's softmax, nats; null for regression."""


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
    evaluations: int
    """Graphs that were evaluated, those of an earlier search included."""
    rows: int
    """Train rows that the hold-out rows were chosen from."""
    products: list[TunedGemm]
    """Every GEMM of the encoder, in graph order."""
    sets: list[TriedSet]
    """The sets that were tried, in order."""
    files: NotRequired[TuneFiles]
    """Paths of the files that were written; only in what is printed."""
