"""The gate: artefacts of a bundle against FP32, and results against each other, on the same rows."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from toolchain.bundle import MANIFEST, open_bundle
from toolchain.diagnose.deploy import advise_deployment, evaluation_choices
from toolchain.engine.plan import plan_backend
from toolchain.errors import GateError, InputError
from toolchain.evaluation.compare import FAILS, PASSES, UNKNOWN, compare
from toolchain.evaluation.original import NAME as ORIGINAL
from toolchain.evaluation.results import find_results, load_predictions, load_result
from toolchain.graph import file_has_halves
from toolchain.recipe import Recipe
from toolchain.recipe.tables import QUANTIZED
from toolchain.records.comparison import NamedComparison
from toolchain.records.deployment import Deployment
from toolchain.records.result import Result
from toolchain.runtimes.ort import has_gpu
from toolchain.workflow import evaluate

log = logging.getLogger(__name__)

Tell = Callable[[str], None]
"""Receives a line of progress."""


def gate(
    bundle: Path, recipe: Recipe, *, engines: Sequence[str] = (), tell: Tell
) -> tuple[list[NamedComparison], Deployment]:
    """Evaluate each graph of the bundle's precision, and its `engines` for this machine; compare each with FP32.

    Without a GPU, graphs with float16 tensors run in halves (graph/halves.py). The views for TensorRT 8.6 are left out:
    they are in float32, and its builder chooses the types.

    Returns:
        The comparisons, and the artefact that they allow to deploy, which is timed against FP32.

    Raises:
        ToolchainError: see errors.py.
    """
    judged = compare_graphs(bundle, recipe, engines=engines, tell=tell)
    comparisons = [one.comparison for one in judged]
    tell("gate: timing against FP32")
    return comparisons, advise_deployment(bundle, recipe, [one.result for one in judged], comparisons)


class Judged(NamedTuple):
    """The result of an artefact, and its comparison with FP32."""

    result: Result
    comparison: NamedComparison


def compare_graphs(
    bundle: Path, recipe: Recipe, *, engines: Sequence[str] = (), named: Path | None = None, tell: Tell
) -> list[Judged]:
    """Return what `gate` does before it times: each artefact that it judges, evaluated and compared with FP32.

    `named` is the bundle's path in the command of a result; None is `bundle`. For errors, see `gate`.
    """
    artefacts, original = open_bundle(bundle, check_files=False).manifest["artefacts"], _original_of(bundle)
    graphs = [name for name in artefacts if name.endswith(".onnx") and name != "model.onnx" and ".trt8." not in name]
    found: list[Judged] = []
    for file in [*(graphs or ["model.onnx"]), *engines]:
        tell(f"gate: {file}")
        choices = evaluation_choices(recipe, file, plan_backend(file) or "ort")
        if needs_halves(bundle / file) and not has_gpu():
            choices = {**choices, "halves": True}
        # The first result's remarks are said once: those of the others are nearly the same.
        remark = log.debug if found else log.warning
        result = evaluate(choices, bundle=bundle, named=named, tell=lambda line: None, remark=remark)
        found.append(Judged(result, _compare_with_fp32(result, recipe, original)))
    return found


def needs_halves(file: Path) -> bool:
    """Return whether a file is a graph with float16 tensors.

    A GPU computes it in float16, and ONNX Runtime on a CPU only with `halves`.
    """
    return file.suffix == ".onnx" and file_has_halves(file)


def compare_results(places: Iterable[Path], recipe: Recipe, *, tell: Tell) -> list[NamedComparison]:
    """Compare results with the first of them; compare the results of a single place each with its FP32 reference.

    A place is the file of a result, or a bundle. A bundle that is compared with another place is represented by one
    result. Only results of its current artefacts in its own precision are considered, and of these the first by:

    1. the most rows;
    2. the graph that was made for the device that ran it (`int8.cpu` on a CPU, `int8` on a GPU);
    3. the latest time.

    A bundle without such a result is evaluated.

    Raises:
        InputError: a place holds no result, or the results are not of the same task and rows.
    """
    places = list(places)
    if len(places) == 1:
        original = _original_of(places[0])
        return [_compare_with_fp32(result, recipe, original) for result in _all_results(places[0], tell)]
    baseline, *candidates = [_representative(place, tell) for place in places]
    return [_compare(baseline, candidate, recipe) for candidate in candidates]


def judge(
    comparisons: list[NamedComparison], *, strict: bool, way_on: str | None = None, advice: str | None = None
) -> None:
    """Refuse a candidate that failed its gate. Warn once of those whose gate cannot tell, or refuse them if `strict`.

    `way_on` is the next command, if one is known. `advice` takes the place of both.

    Raises:
        GateError: it names the first that failed, or else those whose gate cannot tell.
    """
    for one in comparisons:
        if one["verdict"] == FAILS:
            raise GateError(
                f"{one['candidate_name']}: {one['metric']} drops {one['drop_points']:.2f} points, "
                f"{one['max_drop_points']:g} are allowed. {advice or _see_why(one, way_on)}"
            )
    if unsure := [one for one in comparisons if one["verdict"] == UNKNOWN]:
        if strict:
            raise GateError(_unsure(unsure))
        log.warning("warning: %s", _unsure(unsure))


def _see_why(one: NamedComparison, way_on: str | None) -> str:
    """Return the command that shows why a candidate drops, and the next one: `explain` is about INT8 and FP8."""
    variant = one["candidate_name"].rpartition(" ")[2]
    why = f"See why: toolchain {'explain' if variant.startswith(tuple(QUANTIZED)) else 'verify'}"
    return f"{why}; go on: {way_on}" if way_on else f"{why}."


def _unsure(comparisons: list[NamedComparison]) -> str:
    """Return in one sentence which gates cannot tell, and how many rows would, or why none would."""
    first = comparisons[0]
    names = " and ".join(one["candidate_name"] for one in comparisons)
    if why := next((one["why"] for one in comparisons if "why" in one), None):
        return f"{names}: the gate cannot tell: {why}. Put it back, and call the same again."
    drops = " and ".join(f"{one['drop_points']:.2f}" for one in comparisons)
    more = max((one["rows_to_tell"] or 0 for one in comparisons), default=0)
    return (
        f"{names}: the drop of {first['metric']} is {drops} points; {first['n']:,} rows cannot tell whether the true "
        f"drop stays within {first['max_drop_points']:g}. Evaluate {f'about {more:,}' if more else 'more'} rows."
    )


def _all_results(place: Path, tell: Tell) -> list[Result]:
    if (place / MANIFEST).exists() and not _current_results(place):
        return [evaluate({}, bundle=place, tell=tell)]
    return find_results([place])


def _representative(place: Path, tell: Tell) -> Result:
    """Return the result that stands for a given path: the file, or one of a bundle (`compare_results`)."""
    if not (place / MANIFEST).exists():
        return load_result(place)
    precision = open_bundle(place, check_files=False).manifest["precision"]
    own = [result for result in _current_results(place) if result["precision"] == precision]
    return max(own, key=_preference) if own else evaluate({}, bundle=place, tell=tell)


def _preference(result: Result) -> tuple[int, bool, str]:
    """Return the sort key of a bundle's result: rows, whether the graph was made for the device, time."""
    made_for_device = (result["device"] == "cpu") == result["variant"].endswith(".cpu")
    return result["n"], made_for_device, result["created"]


def _current_results(bundle: Path) -> list[Result]:
    try:
        return find_results([bundle])
    except InputError:  # it has none
        return []


def _original_of(place: Path) -> str | None:
    """Return the name of the checkpoint that a bundle's checkpoint was shrunk from; None if it was not shrunk."""
    shrink = open_bundle(place, check_files=False).manifest.get("shrink") if (place / MANIFEST).exists() else None
    return shrink["teacher"]["id"] if shrink else None


def _compare_with_fp32(result: Result, recipe: Recipe, original: str | None) -> NamedComparison:
    """Return the comparison with the FP32 reference, which passes only if the reference is the `original` there is."""
    found = _compare(result, result, recipe, with_reference=True)
    if original is not None and found["baseline_name"] != ORIGINAL and found["verdict"] == PASSES:
        why = f"the original of the shrunk checkpoint, {original}, is not at hand or has changed"
        return {**found, "verdict": UNKNOWN, "why": why}
    return found


def _compare(baseline: Result, candidate: Result, recipe: Recipe, *, with_reference: bool = False) -> NamedComparison:
    """Return the comparison of a candidate with a baseline, or with the FP32 reference of the baseline."""
    keys: tuple[Literal["task", "split", "n", "data_sha256"], ...] = ("task", "split", "n", "data_sha256")
    if [baseline[key] for key in keys] != [candidate[key] for key in keys]:
        raise InputError(
            f"{candidate['file']}: it is of {_rows(candidate)}, and {baseline['file']} is of {_rows(baseline)}. "
            "Evaluate both on the same rows: toolchain eval."
        )
    found = compare(
        load_predictions(baseline, of_reference=with_reference),
        load_predictions(candidate),
        candidate["primary"],
        confidence=recipe.confidence,
        max_drop=recipe.max_drop,
        seed=recipe.seed,
    )
    names = {
        "baseline_name": baseline["agreement"]["reference"] if with_reference else _name(baseline, candidate),
        "candidate_name": _name(candidate, candidate if with_reference else baseline),
    }
    return cast(NamedComparison, {**names, **{key: candidate[key] for key in keys}, **found.to_json()})


def _rows(result: Result) -> str:
    return f"{result['n']} rows of {result['task']} {result['split']} ({result['data_sha256'][:8]})"


def _name(result: Result, other: Result) -> str:
    """Return the backend and variant of a result, after its place if `other` is in another one."""
    place, beside = Path(result["file"]).parent, Path(other["file"]).parent
    name = f"{result['backend']} {result['variant']}"
    return name if place == beside else f"{place.parent.name or place}: {name}"
