"""`toolchain tune`: search which GEMMs of a bundle to exclude from INT8; write a recipe, a record and a plot."""

import json
from collections.abc import Callable
from pathlib import Path

from toolchain import graph
from toolchain.base.files import sha256_json, write_json, write_text
from toolchain.bundle import RESULTS, Bundle
from toolchain.diagnose.way_on import after_tune
from toolchain.errors import InputError
from toolchain.evaluation.target import CHOSEN_ROWS, find_target
from toolchain.heads.distance import Distance
from toolchain.int8.auto import smoothed
from toolchain.int8.calibrate import read_calibration
from toolchain.int8.holdout import choose_holdout
from toolchain.int8.mixed_precision import Search, SearchResult
from toolchain.int8.sensitivity import Sensitivity
from toolchain.recipe.options import RecipeValues
from toolchain.records.quantization import SearchRecord
from toolchain.records.tune import TuneFiles, TuneRecord
from toolchain.report.record_plots import tune_file
from toolchain.runtimes.environment import version_of

# Points of the metric that INT8 may lose with the chosen set of GEMMs, if --max-drop is not given.
DEFAULT_MAX_DROP = 0.5

FOLDER = "tune"

# Part of the key of a saved search. Raise it when a change of the code changes the result of an evaluation.
VERSION = 2


def tune(changes: RecipeValues, *, bundle: Path | None = None, tell: Callable[[str], None]) -> TuneRecord:
    """Find which GEMMs of an INT8 bundle to exclude from INT8; write a recipe, the record and a plot.

    `changes` are keys of a recipe. Every evaluation is saved below the bundle's results, so that an interrupted search
    continues where it stopped.

    Raises:
        InputError: the bundle is not in INT8.
        ToolchainError: see errors.py.
    """
    target = find_target({**changes, "backend": "ort"}, bundle)
    found = target.bundle
    if found:
        found.require_one_model("tune")
    artefacts = found.manifest["artefacts"] if found else {}
    if found is None or "calibration.json" not in artefacts or "model.fp8.onnx" in artefacts:
        raise InputError(
            f"{found.path if found else bundle}: it is not in INT8. Build it with: toolchain build --precision int8."
        )
    calibration = read_calibration(found.file("calibration.json"))
    recipe, resolved = target.resolved.recipe, target.resolved
    max_drop = DEFAULT_MAX_DROP if recipe.max_drop is None else recipe.max_drop
    rows = resolved.rows_without(calibration.about.get("row_sha256", []))
    graphs = [found.manifest["artefacts"][name] for name in ("model.onnx", "calibration.json")]
    tools = [VERSION, version_of("onnxruntime"), version_of("onnxruntime-gpu")]
    key = sha256_json([*graphs, *tools, rows.digest, resolved.max_length, recipe.seed])[:16]
    file = found.path / RESULTS / FOLDER / f"search-{key}.json"
    memory = _read_search(file)
    tell(
        f"evaluating at most {recipe.budget} graphs on hold-out rows from {len(rows)} train rows; "
        f"{len(memory.get('evaluations', {}))} graphs were already evaluated ({file})"
    )

    model = smoothed(graph.load(found.file("model.onnx")), calibration.smoothing)
    holdout = choose_holdout(model, resolved.encode(rows.texts), head=resolved.head, seed=recipe.seed)
    search = Search(model, calibration.ranges, holdout, recipe.budget, memory, lambda: write_json(file, memory))
    record = _record(found, search.run(max_drop=max_drop), max_drop=max_drop, rows=len(rows))
    write_json(found.path / RESULTS / CHOSEN_ROWS, rows.text_digests)
    files, exhausted = _write(found, record), record["evaluations"] < recipe.budget
    way_on = after_tune(
        found, recipe, file=files["recipe"], enough=record["enough"], exhausted=exhausted, max_drop=max_drop
    )
    return {**record, "files": files, "next": way_on}


def _read_search(file: Path) -> SearchRecord:
    """Return the saved evaluations; none if the file is missing or damaged, so that the search starts again."""
    try:
        known: SearchRecord = json.loads(file.read_text(encoding="utf-8"))
        _ = [Sensitivity(**one) for one in known["noise"]], [Distance(**one) for one in known["evaluations"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return known


def _record(bundle: Bundle, found: SearchResult, *, max_drop: float, rows: int) -> TuneRecord:
    return {
        "bundle": str(bundle.path),
        "max_drop_points": max_drop,
        "enough": found.enough,
        "keep": list(found.best.keep),
        "keep_share_of_macs": found.best.macs,
        "expected_drop_points": found.best.expected_drop_points,
        "residual": found.residual.to_json() if found.residual else None,
        "evaluations": found.evaluations,
        "rows": rows,
        "products": [gemm.to_json() for gemm in found.gemms],
        "sets": [one.to_json() for one in found.tried],
    }


def _write(bundle: Bundle, record: TuneRecord) -> TuneFiles:
    """Write a recipe that builds the bundle with the found GEMMs excluded, the record, and a plot; return the paths."""
    folder = bundle.path / RESULTS / FOLDER
    files = {"recipe": folder / "keep.toml", "record": folder / "tune.json", "plot": folder / "tune.svg"}
    values = {
        **bundle.manifest["recipe"],
        "precision": "int8",
        "output": str(bundle.path.resolve()),
        "calibration": str((bundle.path / "calibration.json").resolve()),
        "keep": record["keep"],
        "residual": "int8" if record["residual"] else "float16",
    }
    values = {key: value for key, value in values.items() if key not in ("allow_pickle", "trust_remote_code")}
    lines = [
        f"# Written by toolchain tune: {len(record['keep'])} GEMMs are excluded from INT8.",
        "# Build it, and test with the gate whether that is enough: toolchain build THIS_FILE --max-drop "
        f"{record['max_drop_points']:g}",
    ]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    write_text(files["recipe"], "\n".join(lines) + "\n")
    write_json(files["record"], record)
    write_text(files["plot"], tune_file(record))
    return {"recipe": str(files["recipe"]), "record": str(files["record"]), "plot": str(files["plot"])}
