"""The outcome of a gated build in words: which of its files may be deployed, and why the others may not.

A gated build (`toolchain build --max-drop`) compares each candidate file with FP32 and gives it a verdict.
"""

from pathlib import Path

from toolchain.base.amounts import megabytes
from toolchain.data.metrics import OF_SEVERAL
from toolchain.evaluation.compare import FAILS, PASSES, UNKNOWN
from toolchain.records.comparison import NamedComparison
from toolchain.records.deployment import Candidate, Deployment

# Path of the last gate's record, in the folder of a bundle's results.
GATE = Path("gate/gate.json")


def sentence(answer: Deployment) -> str:
    """Return the outcome in words: the file to deploy with its gain over FP32, then a remark on each other candidate.

    The next command to run is not part of the text.
    """
    if not answer["file"]:
        return " ".join(["Do not deploy this bundle yet.", *(_remark(one) for one in answer["candidates"])])
    (best,) = (one for one in answer["candidates"] if one["file"] == answer["file"])
    found = best["comparison"]
    parts = [
        f"You may deploy {best['file']} on {_where(best)}: its {_metric(found)} is within "
        f"{_points(found['max_drop_points'] or 0)} of FP32's ({100 * found['confidence']:g} % confidence); "
        f"{_changed(found)}.",
        _gain(answer, best),
        *(_remark(one) for one in answer["candidates"] if one is not best),
    ]
    return " ".join(parts)


def _points(value: float) -> str:
    return f"{value:g} point{'' if value == 1 else 's'}"


def _metric(found: NamedComparison) -> str:
    return found["metric"].replace("_", " ")


def _gain(answer: Deployment, best: Candidate) -> str:
    """Return a sentence on the file's size compared with FP32's and, if it was measured, on its speed-up."""
    size = f"has {megabytes(best['bytes'])} MB instead of {megabytes(answer['fp32_bytes'])} MB"
    if answer["speed_up"] is None:
        return f"It {size}."
    busy = " (measured while the machine was busy)" if answer["busy"] else ""
    return f"It runs {answer['speed_up']:.1f} times as fast as FP32 here{busy}, and {size}."


def _where(one: Candidate) -> str:
    if one.get("halves"):
        gpu = "a GPU of compute capability 8.9 or later" if ".fp8." in one["file"] else "a GPU"
        return f"{gpu} (judged on this CPU with float16 rounding emulated)"
    return "a CPU" if one["device"] == "cpu" else "this GPU"


def _changed(found: NamedComparison) -> str:
    """Return a phrase with the number of changed labels or, for a regression, with the number of compared rows."""
    flips, n = found["flips"], found["n"]
    if flips is None:
        return f"on {n:,} rows"
    count = f"{flips['changed']:,}" if flips["changed"] else "none"
    if found["metric"] in OF_SEVERAL:
        return f"the labels of {count} of {n:,} rows changed"
    return f"{count} of {n:,} labels changed"


def _remark(one: Candidate) -> str:
    """Return a sentence with the verdict on a candidate file other than the recommended one."""
    found, reader = one["comparison"], ""
    if one["device"] == "cpu" and ".cpu." not in one["file"]:
        reader = f", the graph for GPUs{' with float16 rounding emulated' if one.get('halves') else ''},"
    if one["verdict"] == PASSES:
        return f"{one['file']}{reader} passes too."
    drop = f"{one['file']}{reader} fails" if one["verdict"] == FAILS else f"{one['file']}{reader} may pass or fail"
    allowed = f"{found['max_drop_points']:g} {'is' if found['max_drop_points'] == 1 else 'are'} allowed"
    text = f"{drop}: its {_metric(found)} drops by {found['drop_points']:.2f} points, {allowed}"
    if one["verdict"] == UNKNOWN:
        text += f", and {_changed(found)}"
        text += f"; {found['why']}" if "why" in found else ""
        text += f"; about {found['rows_to_tell']:,} rows would decide it" if found["rows_to_tell"] else ""
    return f"{text}."
