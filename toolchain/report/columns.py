"""The columns of the table of results, as text (terminal, Markdown) and as cells of the HTML page.

A number in an HTML cell keeps the file and the key that it was read from. A cell without a number has the reason why
there is none.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toolchain.energy.text import joules, reason
from toolchain.errors import InputError
from toolchain.evaluation.compare import count_flips
from toolchain.evaluation.results import load_predictions
from toolchain.records.result import Result

Pattern = str | Callable[[float], str]  # a format specification, or a function that formats a number

# Separates the ends of an interval. The no-break space prevents a line break there.
COMMA = ",\u00a0"

NOT_KEPT = "the result is from a version of toolchain that did not record this value"

# Placeholder for a heading: the name of the task's own metric.
METRIC = "metric"


@dataclass(frozen=True)
class Number:
    """A number for the HTML page: its text as shown, its exact value, and the key and the file that it is from."""

    text: str
    value: float
    key: str
    source: str


@dataclass(frozen=True)
class Cell:
    """A cell of the HTML page: numbers with text between them, or the reason why there are none.

    If it has both, the reason is a remark on the numbers.
    """

    parts: tuple[Number | str, ...] = ()
    reason: str | None = None


TextCell = Callable[[Result], str]
HtmlCell = Callable[[Result], Cell]


@dataclass(frozen=True)
class Column:
    """A column of the table of results: a heading and a function that makes the cells, for text and for HTML.

    `text` and `html` are these functions, called with a result. A column may be in only one of the tables; its fields
    for the other table are None.
    """

    text_heading: str | None = None
    text: TextCell | None = None
    html_heading: str | None = None
    html: HtmlCell | None = None


def look(record: Mapping[str, object], key: str) -> object:
    """Return the value at a dotted key such as latency_ms.p50 or metrics_ci95.accuracy.0, or None if it is absent."""
    value: object = record
    for part in key.split("."):
        if isinstance(value, list) and part.isdigit():
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def known(record: Mapping[str, object], key: str) -> float | None:
    """Return the number at a dotted key of a record; None if it is absent or is not a number."""
    value = look(record, key)
    return value if isinstance(value, int | float) else None


def number(record: Mapping[str, object], key: str, pattern: Pattern) -> Number:
    """Return the number at a dotted key of a record for the HTML page, formatted by `pattern`.

    Raises:
        KeyError: there is no number at this key.
    """
    value = known(record, key)
    if value is None:
        raise KeyError(key)
    text = pattern(value) if callable(pattern) else format(value, pattern)
    return Number(text, value, key, str(record["file"]))


def _text(key: str, digits: int, *, times: float = 1) -> TextCell:
    """Return a function that shows a result's number at `key`, multiplied by `times`, with `digits` decimals.

    It shows '-' if the number was not measured.
    """

    def cell(result: Result) -> str:
        value = known(result, key)
        return "-" if value is None else f"{times * value:,.{digits}f}"

    return cell


def _html(key: str, pattern: str, why: str = NOT_KEPT) -> HtmlCell:
    """Return a function that makes the HTML cell of the number at `key`, or of the text `why` if there is none."""

    def cell(result: Result) -> Cell:
        return Cell(reason=why) if known(result, key) is None else Cell((number(result, key, pattern),))

    return cell


def _metric_text(result: Result) -> str:
    low, high = result["metrics_ci95"][result["primary"]]
    return f"{result['metrics'][result['primary']]:.4f} [{low:.3f}, {high:.3f}]"


def metric(result: Result) -> Cell:
    """Return the cell of the task's main metric with its 95 % interval."""
    primary = result["primary"]
    low, high = (number(result, f"metrics_ci95.{primary}.{end}", ".3f") for end in (0, 1))
    return Cell((number(result, f"metrics.{primary}", ".4f"), " [", low, COMMA, high, "]"))


def _flips(result: Result) -> Cell:
    """Return the cell of the rows whose label differs from FP32's. The saved predictions of both models are needed."""
    try:
        found, reference = load_predictions(result), load_predictions(result, of_reference=True)
    except InputError:
        return Cell(reason="the saved predictions of this result or of FP32 are missing or have changed")
    counts = count_flips(reference.references, reference.predicted, found.predicted)
    if counts is None:
        return Cell(reason="a regression has no labels")
    source = f"{look(result, 'predictions.file')} and {look(result, 'agreement.predictions.file')}"
    return changed_rows(counts.changed, counts.lost, counts.gained, source=source)


def changed_rows(*counts: int, source: str) -> Cell:
    """Return the cell of changed rows, from three counts: rows that changed, that became wrong, that became right."""
    changed, lost, gained = (
        Number(f"{value:,}", value, name, source)
        for name, value in zip(("changed", "lost", "gained"), counts, strict=True)
    )
    return Cell((changed, " (", lost, "\u00a0lost,\u00a0", gained, "\u00a0gained)"))


def _energy(result: Result) -> Cell:
    """Return the cell of the energy per row with its 95 % interval, or with its range over a few windows."""
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
    """Return the cell of the fraction of the device's arithmetic throughput that was used for real tokens."""
    if known(result, UTILISATION) is None:
        code = look(result, "roofline.reason")
        return Cell(reason=reason(str(code)) if code else "the result has no roofline")
    return Cell((number(result, UTILISATION, ".1%"),))


def _memory(result: Result) -> Cell:
    """Return the cell of the peak memory of the process in MB, and on the GPU if GPU memory was measured."""
    names = {"host": "", "device": " on the GPU"}
    parts: list[Number | str] = []
    for key, suffix in names.items():
        if known(result, f"peak_memory_mb.{key}") is not None:
            parts += [*([", "] if parts else []), number(result, f"peak_memory_mb.{key}", ",.0f"), suffix]
    return Cell(tuple(parts)) if parts else Cell(reason="the operating system does not report the peak memory")


AGREEMENT = "agreement.label_agreement"

# Heading of a column that only tables with a cascade have: the fraction of the rows that the second stage ran.
SECOND_STAGE = "rows run by the second stage"

# The columns of a table, in their order.
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
    Column(html_heading="energy per row", html=_energy),
    Column("util", _text(UTILISATION, 1, times=100), "utilisation", _utilisation),
    Column("MB", _text("peak_memory_mb.host", 0)),
    Column("mJ/row", _text("energy.per_inference_j", 2, times=1e3)),
    Column(html_heading="real tokens", html=_html("tokens.padding_efficiency", ".1%")),
    Column(html_heading="peak memory, MB", html=_memory),
)
TEXT_COLUMNS = [(column.text_heading, column.text) for column in COLUMNS if column.text_heading and column.text]
HTML_COLUMNS = [(column.html_heading, column.html) for column in COLUMNS if column.html_heading and column.html]


def html_columns(results: Sequence[Result]) -> list[tuple[str, HtmlCell]]:
    """Return the columns of the HTML table for these results: each heading, with a function that makes the cells."""
    staged = any(known(result, "cascade.passed_on") is not None for result in results)
    return [(heading, cell) for heading, cell in HTML_COLUMNS if staged or heading != SECOND_STAGE]
