"""`tune` on a bundle: the search with its memory on disk, and what comes of it: a recipe, a table, a plot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolchain import graph
from toolchain.bundle import RESULTS, Bundle
from toolchain.errors import InputError
from toolchain.evaluation.target import CHOSEN_ROWS, find_target
from toolchain.files import sha256_json, write_json, write_text
from toolchain.int8.auto import smoothed
from toolchain.int8.calibrate import read_calibration
from toolchain.int8.holdout import choose_holdout
from toolchain.int8.mixed_precision import Search, SearchResult
from toolchain.int8.sensitivity import Sensitivity
from toolchain.records.quantization import SearchRecord
from toolchain.runtimes.distance import Distance
from toolchain.runtimes.environment import version_of

DEFAULT_MAX_DROP = 0.5
FOLDER = "tune"
VERSION = 1
"""Raised when the code changes what an evaluation gives, so that old ones are not taken for new."""


def tune(changes: dict[str, Any], *, bundle: Path | None = None, tell: Callable[[str], None]) -> dict[str, Any]:
    """Find which products of an INT8 bundle to keep out of INT8; return the record, and write recipe and plot.

    Raises:
        ToolchainError: see errors.py; among them InputError if the bundle is not INT8.
    """
    target = find_target({**changes, "backend": "ort"}, bundle)
    found = target.bundle
    if found is None or "calibration.json" not in found.manifest["artefacts"]:
        raise InputError(f"{found.path if found else bundle}: is not in INT8. Tune one that is: toolchain build.")
    calibration = read_calibration(found.file("calibration.json"))
    recipe, resolved = target.resolved.recipe, target.resolved
    max_drop = DEFAULT_MAX_DROP if recipe.max_drop is None else recipe.max_drop
    rows = resolved.rows_without(calibration.about.get("row_sha256", []))

    graphs = [found.manifest["artefacts"][name] for name in ("model.onnx", "calibration.json")]
    tools = [VERSION, version_of("onnxruntime"), version_of("onnxruntime-gpu")]
    key = sha256_json([*graphs, *tools, rows.digest, resolved.max_length, recipe.seed])[:16]
    file = found.path / RESULTS / FOLDER / f"search-{key}.json"
    memory = _memory(file)
    tell(
        f"at most {recipe.budget} graphs on {len(rows)} train rows' hardest and others; "
        f"{len(memory.get('evaluations', {}))} known from before ({file})"
    )

    def load() -> Any:
        return smoothed(lambda: graph.load(found.file("model.onnx")), calibration.smoothing)

    holdout = choose_holdout(load, resolved.encode(rows.texts), seed=recipe.seed)
    search = Search(load, calibration.ranges, holdout, recipe.budget, memory, lambda: write_json(file, memory))
    tuned = search.run(max_drop=max_drop)
    record = _record(found, tuned, max_drop=max_drop, rows=len(rows))
    write_json(found.path / RESULTS / CHOSEN_ROWS, rows.text_digests)
    return record | {"files": _write(found, record)}


def _memory(file: Path) -> SearchRecord:
    try:
        known: SearchRecord = json.loads(file.read_text(encoding="utf-8"))
        _ = [Sensitivity(**one) for one in known["noise"]], [Distance(**one) for one in known["evaluations"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # none, or a damaged one: the search starts afresh
    return known


def _record(bundle: Bundle, tuned: SearchResult, *, max_drop: float, rows: int) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "max_drop_points": max_drop,
        "enough": tuned.enough,
        "keep": list(tuned.best.keep),
        "keep_share_of_macs": tuned.best.macs,
        "expected_drop_points": tuned.best.expected_drop_points,
        "evaluations": tuned.evaluations,
        "rows": rows,
        "products": [gemm.to_json() for gemm in tuned.gemms],
        "sets": [one.to_json() for one in tuned.tried],
    }


def _write(bundle: Bundle, record: dict[str, Any]) -> dict[str, str]:
    """Write the recipe that `build` reads, the record and the plot; return their paths."""
    folder = bundle.path / RESULTS / FOLDER
    files = {"recipe": folder / "keep.toml", "record": folder / "tune.json", "plot": folder / "tune.svg"}
    values = {
        **bundle.manifest["recipe"],
        "precision": "int8",
        "output": str(bundle.path.resolve()),
        "calibration": str((bundle.path / "calibration.json").resolve()),
        "keep": record["keep"],
    }
    values = {key: value for key, value in values.items() if key not in ("allow_pickle", "trust_remote_code")}
    lines = [
        f"# What toolchain tune found: {len(record['keep'])} products stay out of INT8.",
        "# Build it, and let the gate say whether it is enough: toolchain build THIS_FILE --max-drop "
        f"{record['max_drop_points']:g}",
    ]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    write_text(files["recipe"], "\n".join(lines) + "\n")
    write_json(files["record"], record)
    write_text(files["plot"], plot(record))
    return {name: str(file) for name, file in files.items()}


def plot(record: dict[str, Any]) -> str:
    """Return an SVG: the effect of each product alone in INT8, and the expected drop of each set that was tried."""
    import io

    from matplotlib.figure import Figure

    measured = sorted((one for one in record["products"] if one["effect"] is not None), key=lambda one: one["effect"])
    figure = Figure(figsize=(11, 1.5 + 0.25 * len(measured)), layout="constrained")
    left, right = figure.subplots(1, 2)
    kept = set(record["keep"])
    left.barh(
        [one["name"] for one in measured],
        [one["effect"] for one in measured],
        color=["tab:red" if one["name"] in kept else "tab:blue" for one in measured],
    )
    left.set(xlabel="distance of the logits from FP32, this product alone in INT8", title="red: kept out of INT8")
    left.tick_params(axis="y", labelsize=7)
    sets = sorted(record["sets"], key=lambda one: one["macs"])
    right.plot([100 * one["macs"] for one in sets], [one["expected_drop_points"] for one in sets], "o-")
    right.axhline(record["max_drop_points"], color="tab:red", linestyle="--", label="allowed")
    right.set(xlabel="work kept out of INT8, %", ylabel="drop to expect, points (on train rows)", title="sets tried")
    right.legend()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()
