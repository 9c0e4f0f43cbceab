"""Choose the artefact that a bundle may deploy after its gate; give its gain over FP32 and the next command."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from toolchain.base.files import write_json
from toolchain.bundle import RESULTS, Bundle, open_bundle
from toolchain.diagnose.way_on import after_gate
from toolchain.errors import MachineError
from toolchain.evaluation.compare import FAILS, PASSES, UNKNOWN
from toolchain.evaluation.deployment import GATE
from toolchain.evaluation.speed_up import speed_up
from toolchain.evaluation.target import find_target
from toolchain.meters.contention import ContentionMeter
from toolchain.recipe import Recipe
from toolchain.recipe.options import RecipeValues
from toolchain.records.comparison import NamedComparison, Verdict
from toolchain.records.deployment import Candidate, Deployment
from toolchain.records.result import Result
from toolchain.runtimes import open_runtime

# Rows on which a candidate and FP32 are timed in turns. This takes seconds for DistilBERT-base on two cores.
TIMED_ROWS = 96


def evaluation_choices(recipe: Recipe, file: str, backend: str) -> RecipeValues:
    """Return the options that evaluate a file of a bundle on the rows of the gate.

    Options with which the user allowed pickled weights or remote code are kept.
    """
    asked = ("split", "data", "seed", "allow_pickle", "trust_remote_code")
    return {"file": file, "backend": backend, **{key: getattr(recipe, key) for key in asked}}


def advise_deployment(
    path: Path, recipe: Recipe, results: Sequence[Result], comparisons: Sequence[NamedComparison]
) -> Deployment:
    """Choose the fastest artefact that passes, time it against the FP32 graph, and save the answer in the bundle.

    A float16 graph that ran on a CPU (`halves`) is chosen only if no other artefact passes. It is not timed, because it
    is meant for a GPU.

    `results` and `comparisons` come from the gate of `recipe`, one of each per artefact in the same order; there must
    be at least one.

    Raises:
        ToolchainError: see errors.py.
    """
    bundle = open_bundle(path, check_files=False)
    candidates = [_candidate(bundle, *both) for both in zip(results, comparisons, strict=True)]
    passing = [result for result, one in zip(results, candidates, strict=True) if one["verdict"] == PASSES]
    best = max(passing, key=_preference, default=None)
    contention = ContentionMeter()
    contention.start()
    ratio = _speed_up(path, recipe, best) if best and not best.get("halves") else None
    answer: Deployment = {
        "bundle": str(path),
        "file": best["artefact"]["file"] if best else None,
        "verdict": _best_verdict(candidates),
        "speed_up": ratio,
        "busy": contention.stop()["busy"],
        "fp32_bytes": _bytes(bundle, "model.onnx"),
        "candidates": candidates,
        "next": after_gate(bundle, recipe, best, candidates),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(path / RESULTS / GATE, answer)
    return answer


def _preference(result: Result) -> tuple[bool, bool, float]:
    """Return a sort key for passing results; the highest is the best.

    It prefers graphs that ran as they are served (not `halves`), then files not made for ONNX Runtime on CUDA (.cuda.),
    then the higher throughput.
    """
    return not result.get("halves"), ".cuda." not in result["artefact"]["file"], result["throughput_per_s"]


def _candidate(bundle: Bundle, result: Result, comparison: NamedComparison) -> Candidate:
    file, verdict = result["artefact"]["file"], comparison["verdict"]
    assert verdict is not None, "a gate has a limit"
    return {
        "file": file,
        "sha256": result["artefact"]["sha256"],
        "backend": result["backend"],
        "device": result["device"],
        "halves": result.get("halves", False),
        "verdict": verdict,
        "bytes": _bytes(bundle, file),
        "comparison": comparison,
    }


def _best_verdict(candidates: Sequence[Candidate]) -> Verdict:
    found = {one["verdict"] for one in candidates}
    return next(verdict for verdict in (PASSES, UNKNOWN, FAILS) if verdict in found)


def _bytes(bundle: Bundle, file: str) -> int:
    """Return the size of an artefact together with its external data, such as `model.onnx.data`."""
    names = [name for name in bundle.manifest["artefacts"] if name == file or name.startswith(f"{file}.")]
    return sum((bundle.path / name).stat().st_size for name in names)


def _speed_up(path: Path, recipe: Recipe, result: Result) -> float | None:
    """Return how many times as fast the evaluated artefact is as the FP32 graph on the same device.

    Return None if ONNX Runtime cannot run the FP32 graph there.
    """
    device = {"device": result["device"]}
    target = find_target(evaluation_choices(recipe, result["artefact"]["file"], result["backend"]) | device, path)
    rows = target.resolved.rows(recipe.split).sample(TIMED_ROWS, seed=recipe.seed)
    tokens = target.resolved.encode(rows.texts)
    try:
        baseline = find_target(evaluation_choices(recipe, "model.onnx", "ort") | device, path)
        with (
            open_runtime(baseline.backend, baseline.model, **baseline.choices) as first,
            open_runtime(target.backend, target.model, **target.choices) as other,
        ):
            return speed_up(first, other, tokens)
    except MachineError:
        return None
