"""Decides which INT8 graphs of a bundle get healed weights: the weights that `toolchain heal` chose for them.

A graph gets them if its logits come nearer to the FP32 graph's, and if its verdict in the gate (the comparison of its
accuracy with FP32's) does not get worse. Otherwise it keeps the weights that it has. The new version of a bundle is
judged before it replaces the old one.
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

# In order, from the best verdict to the worst.
VERDICTS = (PASSES, UNKNOWN, FAILS)

Tell = Callable[[str], None]
"""Takes one line of text about the progress."""

Check = Callable[[Path, HealRecord], HealRecord]
"""Takes the folder of a new version of a bundle and the record of the healing; returns the record for the manifest.

Raises `WorseError` if a graph with healed weights does not come nearer to FP32."""

Accept = Callable[[Path], None]
"""Takes the folder of a new version that is a complete bundle; raises `WorseError` if the gate's verdict on
a graph with healed weights, or on a file made from such a graph, is worse than before."""


class WorseError(Exception):
    """Healing did not improve some INT8 graphs: `graphs` has the file name of each, and the reason."""

    def __init__(self, graphs: dict[str, str]) -> None:
        super().__init__(str(graphs))
        self.graphs = graphs


@dataclass(frozen=True)
class Held:
    """Held-out rows of the train split, from which nothing is learnt, and the logits for them before healing.

    `reference` are the logits of the FP32 graph, and `before` has those of each INT8 graph by its file name.
    """

    head: Head
    tokens: Tokens
    reference: Logits
    before: dict[str, Logits]

    def distance(self, graph: str, file: Path | None = None) -> Distance:
        """Return how far an INT8 graph's logits are from the FP32 graph's on the held-out rows.

        The graph is read from `file`. If `file` is None, the distance is that of the bundle's own INT8 graph before
        healing; `graph` is the file name of this graph, one of GRAPHS.
        """
        return self.head.distance(self.reference, logits_in(file, self.tokens) if file else self.before[graph])


def logits_in(file: Path, tokens: Tokens) -> Logits:
    """Return the logits of the ONNX graph in `file` for all rows, computed by ONNX Runtime on the CPU."""
    with open_runtime("ort", file, device="cpu") as infer:
        return run(infer, tokens).logits


@dataclass
class Trial:
    """Tries to put the weights that `toolchain heal` chose into the INT8 graphs of one bundle.

    If some graphs do not improve, it tries again without them.
    """

    bundle: Path
    held: Held
    # `before` has the gate's results for the bundle before healing. `evaluate` returns them for the bundle in a folder.
    before: Sequence[Judged]
    evaluate: Callable[[Path], list[Judged]]
    tell: Tell
    # Graphs that have healed weights from an earlier call. If one of them gets worse, healing stops, because all healed
    # weights of a bundle must come from the same call.
    healed: frozenset[str] = frozenset()
    kept: dict[str, str] = field(default_factory=dict)
    # Graph -> its distance from FP32. A second try makes the same graphs, so their distances are computed only once.
    found: dict[str, Distance] = field(default_factory=dict)
    after: list[Judged] = field(default_factory=list)

    def run(self, make: Callable[[HealRecord, Check, Accept], HealRecord], record: HealRecord) -> HealRecord:
        """Call `make` until it makes a new version of the bundle that is not worse; return the record of the healing.

        The attribute `after` then has the gate's findings on the new version.

        Raises:
            GateError: healing improves no graph, or makes a graph worse that has healed weights of an earlier call.
                The bundle is unchanged.
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
        raise GateError(
            f"{self.bundle}: {reasons}. The bundle is unchanged. Exclude GEMMs from INT8 instead: toolchain tune."
        )

    def _nearer(self, folder: Path, record: HealRecord) -> HealRecord:
        """Return the record, completed with each graph's distance from FP32's logits on the held-out rows.

        Raises:
            WorseError: a graph with healed weights is not nearer to FP32 than before.
        """
        distance: dict[str, HealDistance] = {}
        worse: dict[str, str] = {}
        for name in GRAPHS:
            before = after = self.held.distance(name)
            if name not in self.kept:
                after = self.found[name] = self.found.get(name) or self.held.distance(name, folder / name)
            if name not in self.kept and not after.rank < before.rank:
                worse[name] = (
                    f"its logits come no nearer to FP32's (distance {after.rank:.3g} instead of {before.rank:.3g} on "
                    f"{len(self.held.tokens)} held-out train rows)"
                )
            distance[name] = {"before": before.to_json(), "after": after.to_json()}
        if worse:
            raise WorseError(worse)
        return {**record, "distance": distance}

    def _accept(self, folder: Path) -> None:
        """Evaluate the graphs of the new version in `folder`, and compare the gate's verdicts with those before.

        Raises:
            WorseError: the verdict on a graph with healed weights, or on a file made from such a graph, is worse than
                before.
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
    """Return the rank of a comparison's verdict: 0 is the best, and larger numbers are worse."""
    assert comparison["verdict"] is not None, "a gate has a limit"
    return VERDICTS.index(comparison["verdict"])
