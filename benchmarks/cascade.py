"""Throughput and accuracy of a cascade with a lexical first stage, compared with its second stage alone.

The first stage is TF-IDF with logistic regression, the second an INT8 bundle. A row goes to the second stage only if
the first is unsure of its label, which a threshold decides. On the demo, the threshold is chosen on some generated
rows, and the figures are measured on others. On sst2, which runs if ../shared has it, both use the validation rows.
Rows/s are those of the evaluator, from text to logits; the cascade and the second stage alone run in interleaved
rounds.
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

FASTER, TOKENS = "rows/s of the cascade / the second stage", "share of tokens passed on to the second stage"
DROP = "points below the second stage"

TARGETS = {
    "sst2": (Target(f"sst2: {FASTER}", 1.6), Target(f"sst2: {TOKENS}", 0.55, most=True)),
    "demo": (Target(f"demo: {DROP}", 0.5, most=True),),
}

# Seeds of the generator. The demo's train and validation rows were generated with other seeds.
THRESHOLD_SEED, FIGURES_SEED = 101, 102


def generated(folder: Path, rows: int) -> Path:
    """Write `rows` rows for the threshold to choose/train.tsv and others for the figures to validation.tsv.

    Returns `folder`, which contains both files.
    """
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
    """Make a cascade of the bundle `big` in the folder `place`, evaluate both, and return the figures by name.

    `values` are further options of `toolchain cascade`. The figures are measured on the validation rows of `data`, or
    without `data` on those of the bundle's recipe. Returns no figures, and prints why, if no cascade passes its gate.
    """
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
        "time of the cascade / the second stage, measured when it was made": record["cost_ratio"],
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
    """Measure the cascades of the demo and of sst2, and print the figures and whether they meet their targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="interleaved rounds (default 7)")
    parser.add_argument(
        "--rows",
        type=int,
        default=5000,
        metavar="N",
        help="generated rows for the threshold, and as many for the figures",
    )
    parser.add_argument("--only", nargs="+", default=["demo", "sst2"], choices=("demo", "sst2"))
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="second stage for sst2, an INT8 bundle (default: build one)"
    )
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
