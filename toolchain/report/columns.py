"""The columns of the table of results, each as text (terminal, Markdown) and as a cell of the HTML page.

A number in an HTML cell keeps the file and key that it is from; a cell without a number has the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toolchain.energy.text import joules, reason
from toolchain.errors import InputError
from toolchain.evaluation.compare import count_flips
from toolchain.evaluation.results import load_predictions
from toolchain.records.result import Result

Pattern = str | Callable[[float], str]  # a format specification, or a function that formats a number

# Between the ends of an interval, so that a line does not break there.
COMMA = ",\u00a0"

NOT_KEPT = "the result is from a version that did not keep it"

# Heading that stands for the name of the task's own metric.
METRIC = "metric"


@dataclass(frozen=True)
class Number:
    """A number as it is shown, its value, and the key and file that it is from."""

    text: str
    value: float
    key: str
    source: str


@dataclass(frozen=True)
class Cell:
    """Numbers with text between them, or the reason why there are none. With both, the reason is a remark."""

    parts: tuple[Number | str, ...] = ()
    reason: str | None = None


TextCell = Callable[[Result], str]
HtmlCell = Callable[[Result], Cell]


@dataclass(frozen=True)
class Column:
    """A column: heading and cell as text, and heading and cell in HTML; a column can lack one of the two."""

    text_heading: str | None = None
    text: TextCell | None = None
    html_heading: str | None = None
    html: HtmlCell | None = None


def look(record: Mapping[str, object], key: str) -> object:
    """Return the value at a key such as latency_ms.p50 or metrics_ci95.accuracy.0, or None if it is absent."""
    value: object = record
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit():
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def known(record: Mapping[str, object], key: str) -> float | None:
    """Return the number at a key of a record, or None."""
    value = look(record, key)
    return value if isinstance(value, int | float) else None


def number(record: Mapping[str, object], key: str, pattern: Pattern) -> Number:
    """Return the number at a key of a record, formatted.

    Raises:
        KeyError: there is no number at this key.
    """
    value = known(record, key)
    if value is None:
        raise KeyError(key)
    text = pattern(value) if callable(pattern) else format(value, pattern)
    return Number(text, value, key, str(record["file"]))


def _text(key: str, digits: int, *, times: float = 1) -> TextCell:
    """Return the text cell of the number at a key; '-' stands for a value that was not measured."""

    def cell(result: Result) -> str:
        value = known(result, key)
        return "-" if value is None else f"{times * value:,.{digits}f}"

    return cell


def _html(key: str, pattern: str, why: str = NOT_KEPT) -> HtmlCell:
    """Return the HTML cell of the number at a key; `why` is the reason where it is null."""

    def cell(result: Result) -> Cell:
        return Cell(reason=why) if known(result, key) is None else Cell((number(result, key, pattern),))

    return cell


def _metric_text(result: Result) -> str:
    low, high = result["metrics_ci95"][result["primary"]]
    return f"{result['metrics'][result['primary']]:.4f} [{low:.3f}, {high:.3f}]"


def metric(result: Result) -> Cell:
    """Return the task's metric with its interval."""
    primary = result["primary"]
    low, high = (number(result, f"metrics_ci95.{primary}.{end}", ".3f") for end in (0, 1))
    return Cell((number(result, f"metrics.{primary}", ".4f"), " [", low, COMMA, high, "]"))


def _flips(result: Result) -> Cell:
    """Return the number of rows whose label differs from FP32's, if the predictions of both are available."""
    try:
        found, reference = load_predictions(result), load_predictions(result, of_reference=True)
    except InputError:
        return Cell(reason="its predictions or those of FP32 are missing or have changed")
    counts = count_flips(reference.references, reference.predicted, found.predicted)
    if counts is None:
        return Cell(reason="a regression has no labels")
    source = f"{look(result, 'predictions.file')} and {look(result, 'agreement.predictions.file')}"
    return changed_rows(counts.changed, counts.lost, counts.gained, source=source)


def changed_rows(*counts: int, source: str) -> Cell:
    """Return the cell of the number of rows that changed, became wrong and became right."""
    changed, lost, gained = (
        Number(f"{value:,}", value, name, source)
        for name, value in zip(("changed", "lost", "gained"), counts, strict=True)
    )
    return Cell((changed, " (", lost, "\u00a0lost,\u00a0", gained, "\u00a0gained)"))


def _energy(result: Result) -> Cell:
    """Return joules a row with their interval, or with their range if there are few windows."""
    block = result["energy"]
    why = None if block["status"] == "measured" else reason(block["reason"])
    if block["per_inference_j"] is None:
        return Cell(reason=f"energy was not measured: {why}")
    ends = "ci95" if block["ci95"] else "range"
    low, high = (number(result, f"energy.{ends}.{end}", joules) for end in (0, 1))
    between = (" [", low, COMMA, high, "]") if ends == "ci95" else (" (from ", low, " to ", high, ")")
    parts = (number(result, "energy.per_inference_j", joules), *between)
    return Cell(parts, f"a part of the energy is missing: {why}" if why else None)


UTILISATION = "roofline.model_flop_utilisation"


def _utilisation(result: Result) -> Cell:
    """Return the share of the device's arithmetic throughput that real tokens used."""
    if known(result, UTILISATION) is None:
        code = look(result, "roofline.reason")
        return Cell(reason=reason(str(code)) if code else "the result has no roofline")
    return Cell((number(result, UTILISATION, ".1%"),))


def _memory(result: Result) -> Cell:
    """Return the peak memory of the process, and on the GPU if it was measured."""
    names = {"host": "", "device": " on the GPU"}
    parts: list[Number | str] = []
    for key, suffix in names.items():
        if known(result, f"peak_memory_mb.{key}") is not None:
            parts += [*([", "] if parts else []), number(result, f"peak_memory_mb.{key}", ",.0f"), suffix]
    return Cell(tuple(parts)) if parts else Cell(reason="the system does not report it")


AGREEMENT = "agreement.label_agreement"

# Heading of the column that only tables with a cascade have: the share of the rows that its second stage ran.
SECOND_STAGE = "rows of the second stage"

# In the order of the tables.
COLUMNS = (
    Column("runtime", lambda result: f"{result['backend']} {result['device']}"),
    Column("variant", lambda result: str(result["variant"])),
    Column(METRIC, _metric_text, METRIC, metric),
    Column("agree", _text(AGREEMENT, 4), "agrees with FP32", _html(AGREEMENT, ".2%", "a regression has no labels")),
    Column(html_heading=SECOND_STAGE, html=_html("cascade.passed_on", ".1%", "it is not a cascade")),
    Column("diff", _text("agreement.max_abs_logit_difference", 4)),
    Column(html_heading="changed rows", html=_flips),
    Column("p50 ms", _text("latency_ms.p50", 2), "p50, ms", _html("latency_ms.p50", ",.2f")),
    Column("p99 ms", _text("latency_ms.p99", 2), "p99, ms", _html("latency_ms.p99", ",.2f")),
    Column("rows/s", _text("throughput_per_s", 0), "rows/s", _html("throughput_per_s", ",.0f")),
    Column(html_heading="energy a row", html=_energy),
    Column("util", _text(UTILISATION, 1, times=100), "utilisation", _utilisation),
    Column("MB", _text("peak_memory_mb.host", 0)),
    Column("mJ/row", _text("energy.per_inference_j", 2, times=1e3)),
    Column(html_heading="real tokens", html=_html("tokens.padding_efficiency", ".1%")),
    Column(html_heading="peak memory, MB", html=_memory),
)
TEXT_COLUMNS = [(column.text_heading, column.text) for column in COLUMNS if column.text_heading and column.text]
HTML_COLUMNS = [(column.html_heading, column.html) for column in COLUMNS if column.html_heading and column.html]


def html_columns(results: Sequence[Result]) -> list[tuple[str, HtmlCell]]:
    """Return heading and cell of the columns of a table of results on the page."""
    staged = any(known(result, "cascade.passed_on") is not None for result in results)
    return [(heading, cell) for heading, cell in HTML_COLUMNS if staged or heading != SECOND_STAGE]
