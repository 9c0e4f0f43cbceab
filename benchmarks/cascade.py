"""What a cascade with a lexical first stage saves, and what it costs in accuracy, on rows that nothing was chosen on.

The demo: its generator makes rows for the threshold and others for the figures. sst2, if ../shared has it: its
validation rows serve for both, and its second stage is an INT8 bundle. Rows per second are of the evaluator, from text
to logits, with and without the first stage in interleaved rounds.
"""

import argparse
import tempfile
from pathlib import Path

from interleave import interleaved, ratio
from table import show, verdicts
from targets import Target, judge
from workload import SHARED

from toolchain.bundle.build import build
from toolchain.cascade import make
from toolchain.data.demo.make.texts import generate, tsv
from toolchain.errors import GateError
from toolchain.evaluation.stages import run_choices
from toolchain.evaluation.target import find_target
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run_texts
from toolchain.workflow import evaluate

FASTER, TOKENS, DROP = "rows/s of the cascade / the second stage", "share of tokens passed on", "points below it"

TARGETS = {
    "sst2": (Target(f"sst2: {FASTER}", 1.6), Target(f"sst2: {TOKENS}", 0.55, most=True)),
    "demo": (Target(f"demo: {DROP}", 0.5, most=True),),
}

# Seeds of the generator that neither the demo's train rows nor its validation rows have.
THRESHOLD_SEED, FIGURES_SEED = 101, 102


def generated(folder: Path, rows: int) -> Path:
    """Write rows for the threshold (train.tsv of choose/) and others for the figures (validation.tsv); return it."""
    drawn = {seed: generate("validation", rows, seed) for seed in (THRESHOLD_SEED, FIGURES_SEED)}
    known = {row.sentence for row in drawn[THRESHOLD_SEED]}
    fresh = [row for row in drawn[FIGURES_SEED] if row.sentence not in known]
    (folder / "choose").mkdir(parents=True)
    (folder / "choose/train.tsv").write_text(tsv(drawn[THRESHOLD_SEED]), encoding="utf-8")
    (folder / "validation.tsv").write_text(tsv(fresh), encoding="utf-8")
    return folder


def measure(
    name: str, big: Path, place: Path, values: RecipeValues, data: Path | None, rounds: int
) -> dict[str, float]:
    """Make a cascade, evaluate both on the rows of `data` or the bundle's own, and return the figures by name."""
    try:
        record = make({"device": "cpu", **values}, place, big=big, small=None)["cascade"]
    except GateError as error:
        print(f"{name}: {error}")
        return {}
    choices: RecipeValues = {"device": "cpu"} | ({"data": str(data)} if data else {})
    alone, both = (evaluate(choices, bundle=bundle) for bundle in (big, place))
    metric, cascade = alone["primary"], both["cascade"]
    assert cascade
    figures = {
        FASTER: _faster(big, place, choices, rounds),
        TOKENS: cascade["passed_on_tokens"],
        DROP: 100 * (alone["metrics"][metric] - both["metrics"][metric]),
        "runtime of the cascade / the second stage, when it was made": record["cost_ratio"],
        "rows": float(both["n"]),
    }
    return {f"{name}: {key}": value for key, value in figures.items()}


def _faster(big: Path, place: Path, choices: RecipeValues, rounds: int) -> float:
    targets = {"alone": find_target(choices, big), "both": find_target(choices, place)}
    resolved = targets["alone"].resolved
    texts = resolved.rows("validation").texts
    with (
        open_runtime("ort", targets["alone"].model, **run_choices(targets["alone"])) as alone,
        open_runtime("ort", targets["both"].model, **run_choices(targets["both"])) as both,
    ):
        opened = {"alone": alone, "both": both}
        calls = interleaved(
            {name: lambda infer=infer: run_texts(infer, resolved.encode, texts) for name, infer in opened.items()},
            rounds,
        )
    return ratio(calls["alone"], calls["both"]).median


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--rows", type=int, default=5000, metavar="N", help="rows of the generator, for each purpose")
    parser.add_argument("--only", nargs="+", default=["demo", "sst2"], choices=("demo", "sst2"))
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="INT8 bundle of sst2 (default: one is built)")
    args = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "demo" in args.only:
            big, data = _built("demo", "demo", None, folder / "demo"), generated(folder / "rows", args.rows)
            values = {"max_drop": 0.5, "calib_data": str(data / "choose")}
            found |= measure("demo", big, folder / "demo-both", values, data, args.rounds)
        if "sst2" in args.only and (SHARED / "glue/sst2").exists():
            source = str(SHARED / "models/distilbert-l6-h384-sst2")
            big = args.bundle or _built(source, "sst2", str(SHARED / "glue/sst2"), folder / "sst2")
            found |= measure("sst2", big, folder / "sst2-both", {"max_drop": 1.0}, None, args.rounds)
    for key, value in found.items():
        print(f"{key}: {value:.3f}")
    show(verdicts(judge(found, frozenset(), [one for name in args.only for one in TARGETS[name]])))


def _built(model: str, task: str, data: str | None, place: Path) -> Path:
    values = {"model": model, "task": task, "data": data, "precision": "int8", "output": str(place)}
    build(Recipe.make({key: value for key, value in values.items() if value}), engine=False)
    return place


if __name__ == "__main__":
    main()
