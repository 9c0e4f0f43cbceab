"""Which INT8 graphs take healed weights: those that come nearer to FP32, and whose gate finds nothing worse.

A graph that does not keeps the weights that it has. The new version of a bundle is judged before it is put in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.base.tensors import Logits
from toolchain.bundle.healed import GRAPHS, graph_of
from toolchain.checkpoint.tokenize import Tokens
from toolchain.diagnose.gate import Judged
from toolchain.errors import GateError
from toolchain.evaluation.compare import FAILS, PASSES, UNKNOWN
from toolchain.heads.contract import Head
from toolchain.heads.distance import Distance
from toolchain.records.comparison import NamedComparison
from toolchain.records.heal import HealDistance, HealRecord
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run

# From the best to the worst.
VERDICTS = (PASSES, UNKNOWN, FAILS)

Tell = Callable[[str], None]
"""Receives a line of progress."""

Check = Callable[[Path, HealRecord], HealRecord]
"""Gets the folder of a new version and the record, and returns that of the manifest, or raises `WorseError`."""

Accept = Callable[[Path], None]
"""Gets the folder of a new version that is a bundle, and raises `WorseError` or returns."""


class WorseError(Exception):
    """Healing did not help some graphs: `graphs` says of each why."""

    def __init__(self, graphs: dict[str, str]) -> None:
        super().__init__(str(graphs))
        self.graphs = graphs


@dataclass(frozen=True)
class Held:
    """Train rows that nothing is learnt from: their tokens, FP32's logits, and by graph those of INT8 before."""

    head: Head
    tokens: Tokens
    reference: Logits
    before: dict[str, Logits]

    def distance(self, graph: str, file: Path | None = None) -> Distance:
        """Return the distance from FP32 of one of GRAPHS as it was, or of that in `file`."""
        return self.head.distance(self.reference, logits_in(file, self.tokens) if file else self.before[graph])


def logits_in(file: Path, tokens: Tokens) -> Logits:
    """Return the logits of a graph in ONNX Runtime."""
    with open_runtime("ort", file, device="cpu") as infer:
        return run(infer, tokens).logits


@dataclass
class Trial:
    """The tries to put healed weights into the graphs of one bundle, each with fewer graphs than the one before."""

    bundle: Path
    held: Held
    # What the gate found before, and how it judges the bundle in a folder.
    before: Sequence[Judged]
    evaluate: Callable[[Path], list[Judged]]
    tell: Tell
    # Graphs that have healed weights of an earlier call. A bundle holds those of one call.
    healed: frozenset[str] = frozenset()
    kept: dict[str, str] = field(default_factory=dict)
    # Graphs of a second try are those of the first.
    found: dict[str, Distance] = field(default_factory=dict)
    after: list[Judged] = field(default_factory=list)

    def run(self, make: Callable[[HealRecord, Check, Accept], HealRecord], record: HealRecord) -> HealRecord:
        """Return the record of the new version of the bundle that `make` makes; `after` is then what its gate finds.

        Raises:
            GateError: healing helps no graph, or less than an earlier call did. The bundle is unchanged.
        """
        while len(self.kept) < len(GRAPHS):
            graphs = [name for name in GRAPHS if name not in self.kept]
            try:
                return make({**record, "graphs": graphs, "kept": dict(self.kept)}, self._nearer, self._accept)
            except WorseError as worse:
                self.kept |= worse.graphs
                if self.healed & worse.graphs.keys():
                    break
                for name, why in worse.graphs.items() if len(self.kept) < len(GRAPHS) else ():
                    self.tell(f"{name} keeps its weights: {why}")
        reasons = "; ".join(f"{name}: {why}" for name, why in self.kept.items())
        raise GateError(f"{self.bundle}: {reasons}. The bundle is unchanged. Exclude GEMMs instead: toolchain tune.")

    def _nearer(self, folder: Path, record: HealRecord) -> HealRecord:
        """Return the record with the distance of each graph from FP32, on the held-out rows.

        Raises:
            WorseError: a graph with healed weights is no nearer than before.
        """
        distance: dict[str, HealDistance] = {}
        worse: dict[str, str] = {}
        for name in GRAPHS:
            before = after = self.held.distance(name)
            if name not in self.kept:
                after = self.found[name] = self.found.get(name) or self.held.distance(name, folder / name)
            if name not in self.kept and not after.rank < before.rank:
                worse[name] = (
                    f"it comes no nearer to FP32, {after.rank:.3g} instead of {before.rank:.3g} on "
                    f"{len(self.held.tokens)} held-out train rows"
                )
            distance[name] = {"before": before.to_json(), "after": after.to_json()}
        if worse:
            raise WorseError(worse)
        return {**record, "distance": distance}

    def _accept(self, folder: Path) -> None:
        """Evaluate the graphs of the new version.

        Raises:
            WorseError: the verdict on a graph with healed weights, or on a view of it, is worse than before.
        """
        self.after = self.evaluate(folder)
        known = {one.result["artefact"]["file"]: one.comparison for one in self.before}
        worse: dict[str, str] = {}
        for one in self.after:
            file, after = one.result["artefact"]["file"], one.comparison
            before, name = known.get(file), graph_of(file)
            if before and name not in self.kept and _rank(after) > _rank(before):
                worse[name] = (
                    f"{after['metric']} would drop {after['drop_points']:.2f} points ({after['verdict']}) instead of "
                    f"{before['drop_points']:.2f} ({before['verdict']})"
                )
        if worse:
            raise WorseError(worse)


def _rank(comparison: NamedComparison) -> int:
    """Return the place of a verdict from the best to the worst."""
    assert comparison["verdict"] is not None, "a gate has a limit"
    return VERDICTS.index(comparison["verdict"])
