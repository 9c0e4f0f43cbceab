"""The cells of a page's table: every number with the file and key it is from, or why there is none."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolchain.energy import text as words
from toolchain.errors import InputError
from toolchain.evaluation.compare import count_flips
from toolchain.evaluation.results import Result, load_predictions


@dataclass(frozen=True)
class Number:
    """A number as it is shown, as it is, and where it stands: the key in a file."""

    text: str
    value: Any
    key: str
    source: str


@dataclass(frozen=True)
class Cell:
    """Numbers and the words between them; or nothing, and then the reason. Both: the reason is a remark."""

    parts: tuple[Number | str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Column:
    """A heading and what makes its cells."""

    heading: str
    cell: Callable[[Result], Cell]


def look(record: dict[str, Any], key: str) -> Any:
    """Return the value at a key such as latency_ms.p50 or metrics_ci95.accuracy.0; None if it is not there."""
    value: Any = record
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit():
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def number(record: dict[str, Any], key: str, pattern: str | Callable[[Any], str]) -> Number:
    """Return the number at a key of a record, formatted."""
    value = look(record, key)
    text = pattern(value) if callable(pattern) else format(value, pattern)
    return Number(text, value, key, record["file"])


def _plain(key: str, pattern: str, why: str) -> Callable[[Result], Cell]:
    """Return what makes cells of one number; `why` is the reason where it is null."""

    def cell(result: Result) -> Cell:
        return Cell(reason=why) if look(result, key) is None else Cell((number(result, key, pattern),))

    return cell


def metric(result: Result) -> Cell:
    """Return the task's metric with its interval."""
    primary = result["primary"]
    ends = (number(result, f"metrics_ci95.{primary}.{end}", ".3f") for end in (0, 1))
    low, high = ends
    return Cell((number(result, f"metrics.{primary}", ".4f"), " [", low, GLUED, high, "]"))


def flips(result: Result) -> Cell:
    """Return how many rows changed their label from FP32's, where both predictions are at hand."""
    try:
        found, reference = load_predictions(result), load_predictions(result, of_reference=True)
    except InputError:
        return Cell(reason="its predictions or FP32's are not at hand, or changed since")
    counts = count_flips(reference.references, reference.predicted, found.predicted)
    if counts is None:
        return Cell(reason="a regression has no labels that could change")
    source = f"{result['predictions']['file']} and {result['agreement']['predictions']['file']}"
    changed, lost, gained = (
        Number(f"{value:,}", value, name, source)
        for name, value in (("changed", counts.changed), ("lost", counts.lost), ("gained", counts.gained))
    )
    return Cell((changed, " (", lost, "\u00a0lost,\u00a0", gained, "\u00a0gained)"))


def energy(result: Result) -> Cell:
    """Return joules a row with their interval, or range where windows are few."""
    block = result["energy"]
    why = None if block["status"] == "measured" else words.reason(block["reason"])
    if block["per_inference_j"] is None:
        return Cell(reason=f"energy was not measured: {why}")
    ends = "ci95" if block["ci95"] else "range"
    low, high = (number(result, f"energy.{ends}.{end}", words.joules) for end in (0, 1))
    between = (" [", low, GLUED, high, "]") if ends == "ci95" else (" (from ", low, " to ", high, ")")
    parts = (number(result, "energy.per_inference_j", words.joules), *between)
    return Cell(parts, f"a part of the energy is missing: {why}" if why else None)


def utilisation(result: Result) -> Cell:
    """Return the share of the machine's arithmetic that was used."""
    key = "roofline.model_flop_utilisation"
    if look(result, key) is None:
        code = look(result, "roofline.reason")
        return Cell(reason=words.reason(code) if code else "the result has no roofline")
    return Cell((number(result, key, ".1%"),))


def memory(result: Result) -> Cell:
    """Return the peak of the process, and of the GPU where it is known."""
    names = {"host": "", "device": " on the GPU"}
    known = [
        (number(result, f"peak_memory_mb.{key}", ",.0f"), text)
        for key, text in names.items()
        if look(result, f"peak_memory_mb.{key}") is not None
    ]
    if not known:
        return Cell(reason="the system does not tell")
    first, *others = known
    return Cell((*first, *(part for pair in others for part in (", ", *pair))))


GLUED = ",\u00a0"
"""Between the ends of an interval, so that no line ends there."""

NOT_KEPT = "the result is of a version that did not keep it"
METRIC = "metric"

COLUMNS = (
    Column(METRIC, metric),
    Column("agrees with FP32", _plain("agreement.label_agreement", ".2%", "a regression has no labels to agree on")),
    Column("labels changed", flips),
    Column("p50, ms", _plain("latency_ms.p50", ",.2f", NOT_KEPT)),
    Column("p99, ms", _plain("latency_ms.p99", ",.2f", NOT_KEPT)),
    Column("rows/s", _plain("throughput_per_s", ",.0f", NOT_KEPT)),
    Column("energy a row", energy),
    Column("utilisation", utilisation),
    Column("real tokens", _plain("tokens.padding_efficiency", ".1%", NOT_KEPT)),
    Column("peak memory, MB", memory),
)
"""In the order of the page; `metric` stands for the name of the task's own."""
