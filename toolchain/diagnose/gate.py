"""The gate: an artefact against FP32, and results against each other, on the same rows."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import cast

from toolchain.bundle import MANIFEST, open_bundle
from toolchain.engine.plan import is_plan
from toolchain.errors import GateError, InputError
from toolchain.evaluation.compare import FAILS, UNKNOWN, compare
from toolchain.evaluation.results import Result, find_results, load_predictions, load_result
from toolchain.pipeline import evaluate
from toolchain.recipe import Recipe
from toolchain.records.comparison import NamedComparison

log = logging.getLogger(__name__)

Tell = Callable[[str], None]


def gate(bundle: Path, recipe: Recipe, *, engines: Sequence[str] = (), tell: Tell) -> list[NamedComparison]:
    """Compare each graph of the bundle's precision, and its `engines` for this machine, with FP32.

    Raises:
        ToolchainError: see errors.py.
    """
    manifest = open_bundle(bundle, check_files=False).manifest
    graphs = [name for name in manifest["artefacts"] if name.endswith(".onnx") and name != "model.onnx"]
    results = []
    for file in [*(graphs or ["model.onnx"]), *engines]:
        tell(f"gate: {file}")
        backend = "trt" if is_plan(file) else "ort"
        choices = {
            "file": file,
            "split": recipe.split,
            "data": recipe.data,
            "seed": recipe.seed,
            "backend": backend,
            "allow_pickle": recipe.allow_pickle,
            "trust_remote_code": recipe.trust_remote_code,
        }
        results.append(evaluate(choices, bundle=bundle, tell=lambda line: None))
    return [_record(result, result, recipe, of_reference=True) for result in results]


def compare_results(places: Iterable[Path], recipe: Recipe, *, tell: Tell) -> list[NamedComparison]:
    """Compare results with the first of them; those of a single place each with its FP32 reference.

    A place is a result or a bundle. Among others, a bundle stands for the result in its own precision that is of most
    rows, then of the graph that its device is fast at, then newest; it is evaluated if it has none.

    Raises:
        InputError: a place holds no result, or they are not of the same task and rows.
    """
    places = list(places)
    if len(places) == 1:
        return [_record(result, result, recipe, of_reference=True) for result in _results(places[0], tell)]
    baseline, *candidates = [_one(place, tell) for place in places]
    return [_record(baseline, candidate, recipe) for candidate in candidates]


def judge(records: list[NamedComparison], *, strict: bool) -> None:
    """Refuse what failed its gate; warn of what cannot be told, or refuse it too if `strict`.

    Raises:
        GateError: naming the first.
    """
    for record in records:
        found = f"{record['candidate_name']}: {record['metric']} drops {record['drop_points']:.2f} points"
        if record["verdict"] == FAILS:
            raise GateError(
                f"{found}, {record['max_drop_points']:g} allowed. "
                "See why: toolchain explain; what to keep out of INT8: toolchain tune."
            )
        if record["verdict"] == UNKNOWN:
            text = (
                f"{found}; with {record['n']:,} rows one cannot tell whether it stays within "
                f"{record['max_drop_points']:g}. {_more_rows(record)}"
            )
            if strict:
                raise GateError(text)
            log.warning("warning: %s", text)


def _more_rows(record: NamedComparison) -> str:
    rows = record["rows_to_tell"]
    return f"About {rows:,} would tell." if rows else "Evaluate more."


def _results(place: Path, tell: Tell) -> list[Result]:
    if (place / MANIFEST).exists() and not _current(place):
        return [evaluate({}, bundle=place, tell=tell)]
    return find_results([place])


def _one(place: Path, tell: Tell) -> Result:
    if not (place / MANIFEST).exists():
        return load_result(place)
    precision = open_bundle(place, check_files=False).manifest["precision"]
    own = [result for result in _current(place) if result["precision"] == precision]
    return max(own, key=_preference) if own else evaluate({}, bundle=place, tell=tell)


def _preference(result: Result) -> tuple[int, bool, str]:
    """Rank results of one bundle: of most rows, of the graph that this device is fast at, newest."""
    return result["n"], (result["device"] == "cpu") == result["variant"].endswith(".cpu"), result["created"]


def _current(bundle: Path) -> list[Result]:
    try:
        return find_results([bundle])
    except InputError:
        return []


def _record(baseline: Result, candidate: Result, recipe: Recipe, *, of_reference: bool = False) -> NamedComparison:
    keys = ("task", "split", "n", "data_sha256")
    if [baseline[key] for key in keys] != [candidate[key] for key in keys]:
        raise InputError(
            f"{candidate['file']}: {_rows(candidate)}, and {baseline['file']} is of {_rows(baseline)}. "
            "Evaluate both on the same rows: toolchain eval."
        )
    found = compare(
        load_predictions(baseline, of_reference=of_reference),
        load_predictions(candidate),
        candidate["primary"],
        confidence=recipe.confidence,
        max_drop=recipe.max_drop,
        seed=recipe.seed,
    )
    names = {
        "baseline_name": baseline["agreement"]["reference"] if of_reference else _name(baseline, candidate),
        "candidate_name": _name(candidate, candidate if of_reference else baseline),
    }
    return cast(NamedComparison, {**names, **{key: candidate[key] for key in keys}, **found.to_json()})


def _rows(result: Result) -> str:
    return f"{result['n']} rows of {result['task']} {result['split']} ({result['data_sha256'][:8]})"


def _name(result: Result, other: Result) -> str:
    """Return what tells a result from `other`: its runtime, and its place if that is another."""
    place, beside = Path(result["file"]).parent, Path(other["file"]).parent
    name = f"{result['backend']} {result['variant']}"
    return name if place == beside else f"{place.parent.name or place}: {name}"
