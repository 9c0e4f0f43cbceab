"""The gate: compare the accuracy of a bundle's artefacts with FP32, and results with each other, on the same rows."""

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
"""Called with each line of progress."""


def gate(
    bundle: Path, recipe: Recipe, *, engines: Sequence[str] = (), tell: Tell
) -> tuple[list[NamedComparison], Deployment]:
    """Evaluate the graphs in the bundle's precision and the `engines` for this machine; compare each with FP32.

    Without a GPU, graphs with float16 tensors run on the CPU with every value rounded to float16 (graph/halves.py). The
    graphs for TensorRT 8.6 are left out: they are in float32, and its builder chooses the types.

    Returns:
        The comparisons, and the artefact that may be deployed, with its speed-up over FP32 and the next command.

    Raises:
        ToolchainError: see errors.py.
    """
    judged = compare_graphs(bundle, recipe, engines=engines, tell=tell)
    comparisons = [one.comparison for one in judged]
    tell("gate: timing the best artefact against FP32")
    return comparisons, advise_deployment(bundle, recipe, [one.result for one in judged], comparisons)


class Judged(NamedTuple):
    """The evaluation result of an artefact, and its comparison with FP32."""

    result: Result
    comparison: NamedComparison


def compare_graphs(
    bundle: Path, recipe: Recipe, *, engines: Sequence[str] = (), named: Path | None = None, tell: Tell
) -> list[Judged]:
    """Evaluate each artefact that `gate` judges, and compare it with FP32; nothing is timed against FP32 yet.

    `named` is the path of the bundle that the command in a result shows; None for `bundle`. For errors, see `gate`.
    """
    artefacts, original = open_bundle(bundle, check_files=False).manifest["artefacts"], _original_of(bundle)
    graphs = [name for name in artefacts if name.endswith(".onnx") and name != "model.onnx" and ".trt8." not in name]
    found: list[Judged] = []
    for file in [*(graphs or ["model.onnx"]), *engines]:
        tell(f"gate: {file}")
        choices = evaluation_choices(recipe, file, plan_backend(file) or "ort")
        if needs_halves(bundle / file) and not has_gpu():
            choices = {**choices, "halves": True}
        # Only the first result's remarks are logged as warnings, because those of the other results are nearly the
        # same.
        remark = log.debug if found else log.warning
        result = evaluate(choices, bundle=bundle, named=named, tell=lambda line: None, remark=remark)
        found.append(Judged(result, _compare_with_fp32(result, recipe, original)))
    return found


def needs_halves(file: Path) -> bool:
    """Return whether a file is an ONNX graph with float16 tensors.

    A GPU computes such a graph in float16; ONNX Runtime on a CPU rounds to float16 only with the option `halves`.
    """
    return file.suffix == ".onnx" and file_has_halves(file)


def compare_results(places: Iterable[Path], recipe: Recipe, *, tell: Tell) -> list[NamedComparison]:
    """Compare the result of each further place with that of the first place, or a single place's results with FP32.

    A place is the file of a result, or a bundle. Among several places, a bundle is represented by one result. It is
    chosen among the results of the bundle's current artefacts in the bundle's precision, by these criteria in order:

    1. the most rows;
    2. a graph that was made for the device that ran it (`int8.cpu` on a CPU, `int8` on a GPU);
    3. the latest time.

    A bundle without such a result is evaluated now.

    Raises:
        InputError: a place has no result, or the results are not for the same task and rows.
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
    """Raise an error if a candidate failed its gate. If the gate cannot tell, log a warning or, if `strict`, raise too.

    `way_on` is the next command, if known. The message has it and a command that shows why the candidate failed, or
    `advice` instead of both.

    Raises:
        GateError: a candidate failed, or (if `strict`) the gate cannot tell; the message names the candidates.
    """
    for one in comparisons:
        if one["verdict"] == FAILS:
            raise GateError(
                f"{one['candidate_name']}: {one['metric']} drops by {one['drop_points']:.2f} points, and the limit is "
                f"{one['max_drop_points']:g}. {advice or _see_why(one, way_on)}"
            )
    if unsure := [one for one in comparisons if one["verdict"] == UNKNOWN]:
        if strict:
            raise GateError(_unsure(unsure))
        log.warning("warning: %s", _unsure(unsure))


def _see_why(one: NamedComparison, way_on: str | None) -> str:
    """Return a sentence with the command that shows why a candidate's metric drops, and with the next command.

    The first command is `explain` for INT8 and FP8, or else `verify`.
    """
    variant = one["candidate_name"].rpartition(" ")[2]
    shows_why = f"toolchain {'explain' if variant.startswith(tuple(QUANTIZED)) else 'verify'}"
    if way_on is None:
        return f"To see why: {shows_why}."
    if way_on.startswith(shows_why):
        return f"To see why: {way_on}"
    return f"To see why: {shows_why}; next command: {way_on}"


def _unsure(comparisons: list[NamedComparison]) -> str:
    """Return a sentence that names the candidates for which the gate cannot tell, and what would let it decide."""
    first = comparisons[0]
    names = " and ".join(one["candidate_name"] for one in comparisons)
    if why := next((one["why"] for one in comparisons if "why" in one), None):
        return f"{names}: the gate cannot tell: {why}. Restore the original, and run the same command again."
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
    """Return the result that represents a place: the result itself, or one of a bundle (see `compare_results`)."""
    if not (place / MANIFEST).exists():
        return load_result(place)
    precision = open_bundle(place, check_files=False).manifest["precision"]
    own = [result for result in _current_results(place) if result["precision"] == precision]
    return max(own, key=_preference) if own else evaluate({}, bundle=place, tell=tell)


def _preference(result: Result) -> tuple[int, bool, str]:
    """Return the sort key of a result: number of rows, whether its graph is made for the device that ran it, and date.

    The result with the highest key represents the bundle.
    """
    made_for_device = (result["device"] == "cpu") == result["variant"].endswith(".cpu")
    return result["n"], made_for_device, result["created"]


def _current_results(bundle: Path) -> list[Result]:
    try:
        return find_results([bundle])
    except InputError:  # the bundle has no results
        return []


def _original_of(place: Path) -> str | None:
    """Return the name of the checkpoint that a bundle's checkpoint was shrunk from; None if it was not shrunk."""
    shrink = open_bundle(place, check_files=False).manifest.get("shrink") if (place / MANIFEST).exists() else None
    return shrink["teacher"]["id"] if shrink else None


def _compare_with_fp32(result: Result, recipe: Recipe, original: str | None) -> NamedComparison:
    """Return the comparison of a result with its FP32 reference.

    If a shrunk checkpoint has an `original`, the verdict is a pass only if this original was the reference.
    """
    found = _compare(result, result, recipe, with_reference=True)
    if original is not None and found["baseline_name"] != ORIGINAL and found["verdict"] == PASSES:
        why = f"the original of the shrunk checkpoint, {original}, cannot be found or has changed"
        return {**found, "verdict": UNKNOWN, "why": why}
    return found


def _compare(baseline: Result, candidate: Result, recipe: Recipe, *, with_reference: bool = False) -> NamedComparison:
    """Return the comparison of a candidate with a baseline or, if `with_reference`, the baseline's FP32 reference."""
    keys: tuple[Literal["task", "split", "n", "data_sha256"], ...] = ("task", "split", "n", "data_sha256")
    if [baseline[key] for key in keys] != [candidate[key] for key in keys]:
        raise InputError(
            f"{candidate['file']}: this result is for {_rows(candidate)}, but {baseline['file']} is for "
            f"{_rows(baseline)}. Evaluate both on the same rows with toolchain eval."
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
    """Return the backend and variant of a result, after the name of its bundle if `other` is of another bundle."""
    place, beside = Path(result["file"]).parent, Path(other["file"]).parent
    name = f"{result['backend']} {result['variant']}"
    return name if place == beside else f"{place.parent.name or place}: {name}"
