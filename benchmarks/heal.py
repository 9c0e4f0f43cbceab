"""What `toolchain heal` changes in INT8 bundles of GLUE's models: distance from FP32, drop of the metric, minutes.

For each task and range method, a bundle is built without its gate and healed once for each seed, even if its gate would
pass. The seed draws three sets of train rows: rows that the weights are rounded on, rows that choose the correction of
the bias, and hold-out rows. For both INT8 graphs, the distance of the logits from FP32's is measured on the hold-out
rows, and the drop of the metric on the validation rows. heal learns from neither. If heal does not help a graph, the
graph keeps its weights and so its figures, and `kept` gives the reason. If heal helps no graph, it refuses the bundle:
there is no drop, and `refused` gives the reason.

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
WORSE = "graphs that fail their gate after healing but not before"
FURTHER = "healings that improved no INT8 graph"
DROP, LONGEST = "largest drop of a graph for CPUs, points", "minutes of the longest healing"
TARGETS = (
    Target(WORSE, 0, most=True),
    Target(FURTHER, 0, most=True),
    Target(DROP, MAX_DROP, most=True),
    Target(LONGEST, 10, most=True),
)


def built(task: str, method: str, folder: Path) -> Path:
    """Return the bundle of a task's model in INT8 with this range method, in `folder`. Build it if it is not there.

    The build runs without the gate.
    """
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
    """Heal a copy of a bundle in `folder`; return the result of `heal` and the minutes that it took.

    If heal refuses the bundle, because it improved no INT8 graph, the result is its message.
    """
    place = shutil.copytree(bundle, folder / f"{bundle.name}-{seed}")
    start_s = time.monotonic()
    try:
        found: Healed | str = heal({"max_drop": MAX_DROP, "seed": seed, "device": "cpu", "force": True}, place)
    except GateError as error:
        found = str(error)
    return found, (time.monotonic() - start_s) / 60


def line(found: Healed | str) -> dict[str, object]:
    """Return the figures of one healing that are printed: distances and verdicts of each graph before and after it.

    For a healing that was refused, return only its message.
    """
    if isinstance(found, str):
        return {"refused": found}
    assert found["heal"] is not None, "heal was called with force, so it cannot skip the bundle"
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
    """Return the figures of one healing that have a target. A healing that was refused has no drop."""
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
    """Return the figures of all healings together: the sum of each count, and the largest of each other figure."""
    names = {name: (sum if name in (WORSE, FURTHER) else max) for one in each for name in one}
    return {name: merge(one[name] for one in each if name in one) for name, merge in names.items()}


def _fails(comparison: NamedComparison) -> bool:
    return comparison["verdict"] == "fails"


def main() -> None:
    """Heal a bundle for each task, range method and seed; print each result, and whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "sst2", "stsb"], metavar="TASK", help="tasks of GLUE")
    parser.add_argument(
        "--methods", nargs="+", default=["auto"], metavar="METHOD", help="range methods (--calib-method)"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of seeds (default 3)")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder for the built bundles; a later call uses them again"
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
