"""Results as one page of HTML that needs nothing else: no network, no script, light and dark, a phone or paper."""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from toolchain import __version__
from toolchain.energy import text as words
from toolchain.evaluation.results import Result
from toolchain.mlperf import text as mlperf
from toolchain.report import glue, plots
from toolchain.report.cells import COLUMNS, METRIC, Cell, Number, look, metric, number
from toolchain.report.inputs import Material, Record
from toolchain.report.plots import Axis, Plot
from toolchain.report.table import groups, names_of, title

T = TypeVar("T")

FOLDER = Path(__file__).parent
TEMPLATE, STYLE = "page.html", "page.css"


@dataclass(frozen=True)
class Row:
    """A result as a row: its name, where its record stands in the page, and a cell for each column."""

    name: str
    anchor: str
    result: Result
    cells: list[Cell]
    notes: list[int | None]


@dataclass(frozen=True)
class Card:
    """A figure to remember: what it is, whose, and how it stands to the baseline's; without parts, not measured."""

    label: str
    parts: tuple[Number | str, ...] = ()
    beside: tuple[Number | str, ...] = ()


@dataclass(frozen=True)
class Section:
    """Results of the same model, task and rows."""

    anchor: str
    title: str
    first: Result
    headings: list[str]
    rows: list[Row]
    reasons: list[str]
    cards: list[Card]
    plots: list[Plot]
    energies: list[tuple[list[str], list[Row]]]
    scenarios: list[tuple[list[str], Row]]
    environments: list[tuple[dict[str, Any], list[Row]]]


def html(material: Material) -> str:
    """Return the page. Texts of others, such as a model's name, are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (FOLDER / STYLE).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    records = [*material.results, *material.tuned, *material.powers]
    anchors = {id(record): f"record-{at}" for at, record in enumerate(records)}
    sections = [_section(group, f"group-{at}", anchors) for at, group in enumerate(groups(material.results))]
    return (
        environment.get_template(TEMPLATE).render(
            style=style,
            digest=digest,
            version=__version__,
            created=max((record["created"] for record in records if record.get("created")), default=None),
            sections=sections,
            scores=glue.scores(material.results),
            tuned=[(record, plots.sensitivity(record, name=f"tuned-{at}")) for at, record in enumerate(material.tuned)],
            powers=[
                (record, plots.power(record, name=f"power-{at}"), _power(record))
                for at, record in enumerate(material.powers)
            ],
            records=[(anchors[id(record)], record["file"], _compact(record)) for record in records],
            number=number,
            reason=words.reason,
            is_number=lambda part: isinstance(part, Number),
        )
        + "\n"
    )


def _compact(record: Record) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False)


def _section(results: list[Result], anchor: str, anchors: dict[int, str]) -> Section:
    """Return what the page shows of a group; the FP32 reference, if it is there, comes first."""
    results = sorted(results, key=lambda result: (result["backend"], result["precision"]) != ("torch", "fp32"))
    names = names_of(results)
    reasons: list[str] = []
    rows = []
    for name, result in zip(names, results, strict=True):
        cells = [column.cell(result) for column in COLUMNS]
        reasons += [cell.reason for cell in cells if cell.reason and cell.reason not in reasons]
        notes = [reasons.index(cell.reason) + 1 if cell.reason else None for cell in cells]
        rows.append(Row(name, anchors[id(result)], result, cells, notes))
    headings = [results[0]["primary"] if column.heading == METRIC else column.heading for column in COLUMNS]
    return Section(
        anchor,
        title(results[0]),
        results[0],
        headings,
        rows,
        list(dict.fromkeys(reasons)),
        _cards(results, names),
        _plots(results, anchor),
        _alike(rows, lambda row: words.describe(row.result["energy"])),
        [(mlperf.describe(row.result["mlperf"]), row) for row in rows if row.result.get("mlperf")],
        _alike(rows, lambda row: row.result["environment"]),
    )


def _alike(rows: list[Row], of: Callable[[Row], T]) -> list[tuple[T, list[Row]]]:
    """Return what rows have, each once, with the rows that have it."""
    found: list[tuple[T, list[Row]]] = []
    for row in rows:
        its = next((same for value, same in found if value == of(row)), None)
        if its is None:
            found.append((of(row), [row]))
        else:
            its.append(row)
    return found


def _cards(results: list[Result], names: list[str]) -> list[Card]:
    """Return the best of each kind; the metric's with its interval, so that no one takes noise for a gain."""
    primary = results[0]["primary"]
    wanted: tuple[tuple[str, str, str | Callable[[Any], str], str, bool], ...] = (
        (f"highest {primary}", f"metrics.{primary}", ".4f", "", True),
        ("most rows a second", "throughput_per_s", ",.0f", " rows/s", True),
        ("shortest median latency", "latency_ms.p50", ",.2f", " ms", False),
        ("least energy a row", "energy.per_inference_j", words.joules, "", False),
    )
    cards = []
    for label, key, pattern, unit, most in wanted:
        known = [at for at, result in enumerate(results) if look(result, key) is not None]
        if not known:
            cards.append(Card(label))
            continue
        values = [look(results[at], key) for at in known]
        best = known[values.index(max(values) if most else min(values))]
        shown = number(results[best], key, pattern)
        beside = metric(results[best]).parts[1:] if key.startswith("metrics") else _beside(shown, results[0], names[0])
        cards.append(Card(label, (shown, unit), (names[best], *beside)))
    return cards


def _beside(shown: Number, baseline: Result, name: str) -> tuple[Number | str, ...]:
    """Return how a number stands to the baseline's: how many times it, or what share of it."""
    base = look(baseline, shown.key)
    if not base or baseline["file"] == shown.source:
        return ()
    value = shown.value / base
    text = f"{value:.2g} times" if 1 <= value < 10 else f"{value:,.0f} times" if value >= 10 else f"{100 * value:.2g} %"
    ratio = Number(text, value, f"{shown.key}, divided", f"{shown.source} and {baseline['file']}")
    return (", ", ratio, f" {name}" if value >= 1 else f" of {name}'s")


def _plots(results: list[Result], anchor: str) -> list[Plot]:
    made = [
        plots.against(results, cost, name=f"{anchor}-{at}", caption=caption)
        for at, (cost, caption) in enumerate(_costs(results))
    ]
    more = (plots.padding(results, name=f"{anchor}-padding"), plots.lengths(results, name=f"{anchor}-lengths"))
    return [*made, plots.latency(results, name=f"{anchor}-latency"), *(plot for plot in more if plot)]


def _costs(results: list[Result]) -> list[tuple[Axis, str]]:
    """Return what the metric is plotted against; energy if that of any was measured."""
    bars = "Upright: the 95 % interval."
    speeds = tuple((result["throughput_per_s"],) * 3 for result in results)
    times = tuple((ms["p50"], ms["p50"], ms["p99"]) for ms in (result["latency_ms"] for result in results))
    joules = tuple(_joules(result["energy"]) for result in results)
    found = [
        (Axis("rows/s", "throughput_per_s", speeds, less=False), f"Quality against throughput. {bars}"),
        (
            Axis("median latency, ms", "latency_ms.p50", times),
            f"Quality against latency; across: up to the 99th percentile. {bars}",
        ),
        (
            Axis("energy a row, J", "energy.per_inference_j", joules),
            f"Quality against energy; across: the 95 % interval, or the range of few windows. {bars}",
        ),
    ]
    return [(axis, caption) for axis, caption in found if any(axis.values)]


def _joules(block: Record) -> tuple[float, float, float] | None:
    each = block["per_inference_j"]
    return None if each is None else (each, *(block["ci95"] or block["range"]))


def _power(record: Record) -> list[Number]:
    """Return the figures of a power record that were measured."""
    patterns: dict[str, str | Callable[[Any], str]]
    patterns = {"total_j": words.joules, "mean_power_w": ".4g", "peak_power_w": ".4g", "seconds": ".4g"}
    return [number(record, key, pattern) for key, pattern in patterns.items() if record.get(key) is not None]
