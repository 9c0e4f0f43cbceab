"""What `toolchain heal` does to INT8 bundles of GLUE's models: the distance from FP32, the drop, and the minutes.

Each bundle is built with `--calib-method` and healed once for each seed, also where its gate passes. The seed chooses
the rows that the weights are rounded on, those that choose the bias and those that are held out. The distance is over
held-out train rows, and the drop over the validation rows, of both INT8 graphs; neither are rows that were learnt from.
A graph that heal did not help has the figures of before, and `kept` says why. A seed that heal refuses has no drop;
`refused` says why.

    python benchmarks/heal.py --tasks mrpc --methods auto entropy --seeds 3
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from table import show, verdicts
from targets import Target, judge
from workload import SHARED

from toolchain.bundle import MANIFEST
from toolchain.bundle.build import build
from toolchain.distill.heal import heal
from toolchain.errors import GateError
from toolchain.heads.distance import Distance
from toolchain.recipe import Recipe
from toolchain.records.comparison import NamedComparison
from toolchain.records.heal import Healed
from toolchain.runtimes.environment import describe

MAX_DROP = 0.5
WORSE, FURTHER = "graphs that fail their gate only afterwards", "bundles without a graph that is nearer to FP32"
DROP, LONGEST = "largest drop of a graph for CPUs, points", "minutes of the longest"
TARGETS = (
    Target(WORSE, 0, most=True),
    Target(FURTHER, 0, most=True),
    Target(DROP, MAX_DROP, most=True),
    Target(LONGEST, 10, most=True),
)


def built(task: str, method: str, folder: Path) -> Path:
    """Build a task's model in INT8 with a range method, without its gate, if it is not there; return the bundle."""
    place = folder / f"{task}-{method}"
    if (place / MANIFEST).exists():
        return place
    values = {
        "model": str(SHARED / f"models/distilbert-l6-h384-{task}"),
        "task": task,
        "data": str(SHARED / "glue" / task),
    }
    values |= {"device": "cpu", "precision": "int8", "calib_method": method, "output": str(place)}
    build(Recipe.make(values), engine=False)
    return place


def healed(bundle: Path, seed: int, folder: Path) -> tuple[Healed | str, float]:
    """Heal a copy of a bundle; return what `heal` found, or why it came no nearer, and the minutes it took."""
    place = shutil.copytree(bundle, folder / f"{bundle.name}-{seed}")
    start_s = time.monotonic()
    try:
        found: Healed | str = heal({"max_drop": MAX_DROP, "seed": seed, "device": "cpu", "force": True}, place)
    except GateError as error:
        found = str(error)
    return found, (time.monotonic() - start_s) / 60


def line(found: Healed | str) -> dict[str, object]:
    """Return the figures of one healing, before and after, by graph; or why it was refused."""
    if isinstance(found, str):
        return {"refused": found}
    assert found["heal"] is not None, "a healing is forced"
    moved = {
        file: [Distance(**one[at]).rank for at in ("before", "after")]
        for file, one in found["heal"]["distance"].items()
    }
    gates = {
        at: {one["candidate_name"]: [one["drop_points"], one["verdict"]] for one in comparisons}
        for at, comparisons in (("before", found["before"]), ("after", found.get("gate", [])))
    }
    kept = {"kept": found["heal"].get("kept", {})}
    return {"distance": moved, "gate": gates, "rounding": found["heal"]["rounding"], **kept}


def figures(found: Healed | str, minutes: float) -> dict[str, float]:
    """Return what the targets judge, of one healing; one that was refused has no drop."""
    if isinstance(found, str):
        return {WORSE: 0, FURTHER: 1, LONGEST: minutes}
    before, after = found["before"], found["gate"]
    return {
        WORSE: sum(_fails(new) and not _fails(old) for old, new in zip(before, after, strict=True)),
        FURTHER: 0,
        DROP: max(one["drop_points"] for one in after if one["candidate_name"].endswith(".cpu")),
        LONGEST: minutes,
    }


def together(each: list[dict[str, float]]) -> dict[str, float]:
    """Return the figures of all healings: of the counts their sum, and of the others the largest."""
    names = {name: (sum if name in (WORSE, FURTHER) else max) for one in each for name in one}
    return {name: merge(one[name] for one in each if name in one) for name, merge in names.items()}


def _fails(comparison: NamedComparison) -> bool:
    return comparison["verdict"] == "fails"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "sst2", "stsb"], metavar="TASK")
    parser.add_argument("--methods", nargs="+", default=["auto"], metavar="METHOD", help="of calibration")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder of the bundles, which a later call takes again"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the figures as JSON")
    args = parser.parse_args()
    lines, each = [], []
    with tempfile.TemporaryDirectory() as place:
        for task in args.tasks:
            for method in args.methods:
                bundle = built(task, method, args.keep or Path(place))
                for seed in range(args.seeds):
                    made, minutes = healed(bundle, seed, Path(place))
                    each.append(figures(made, minutes))
                    lines.append({"task": task, "method": method, "seed": seed, "minutes": minutes, **line(made)})
                    print(json.dumps(lines[-1]), flush=True)
    if args.output:
        args.output.write_text(json.dumps({"environment": describe(), "lines": lines}, indent=1) + "\n")
    show(verdicts(judge(together(each), frozenset(), TARGETS)))


if __name__ == "__main__":
    main()
