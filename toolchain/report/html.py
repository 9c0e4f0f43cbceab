"""Results as one HTML page, which loads nothing from the network and has no scripts.

Its style adapts to light and dark displays, phones and paper.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from toolchain import __version__
from toolchain.data.metrics import OF_SEVERAL
from toolchain.energy.text import describe, joules, reason
from toolchain.errors import InputError
from toolchain.evaluation.compare import SEVERAL
from toolchain.evaluation.mlperf.text import describe as describe_scenario
from toolchain.evaluation.results import is_resolved
from toolchain.records.deployment import Deployment
from toolchain.records.power import PowerRecord
from toolchain.records.result import Environment, Result
from toolchain.report import glue, kernel_plots, plots, record_plots, sweeps
from toolchain.report.columns import METRIC, Cell, Number, Pattern, html_columns, known, look, metric, number
from toolchain.report.costs import COSTS, Ends, counted_in, joules_ends
from toolchain.report.decision import Answer, Detail, Drop, answer_of, detail_of, drop_of, reference_cell
from toolchain.report.inputs import Material
from toolchain.report.plots import Axis, Plot
from toolchain.report.table import groups, names_of, title

if TYPE_CHECKING:
    from jinja2 import Template

T = TypeVar("T")

FOLDER = Path(__file__).parent
TEMPLATE, STYLE = "page.html", "page.css"
ENERGY = COSTS["energy"].key


@dataclass(frozen=True)
class Row:
    """A result as a row of the table, with a cell for each column.

    `anchor` is the HTML id of the result's record on the page. `notes` has for each cell the number of its footnote,
    or None.
    """

    name: str
    anchor: str
    result: Result
    cells: list[Cell]
    notes: list[int | None]


@dataclass(frozen=True)
class Card:
    """A card with the best figure of one kind, such as the highest throughput.

    `parts` is the figure; `beside` names the runtime with this figure, and has the figure's ratio to the baseline's.
    Both are empty if no result has such a figure.
    """

    label: str
    parts: tuple[Number | str, ...] = ()
    beside: tuple[Number | str, ...] = ()


@dataclass(frozen=True)
class Section:
    """The section of the page for results of the same model, task and rows."""

    anchor: str
    title: str
    first: Result
    answer: Answer | None
    drops: list[Drop]
    headings: list[str]
    reference: tuple[str, Cell] | None
    rows: list[Row]
    reasons: list[str]
    busy: list[str]
    details: list[Detail]
    cards: list[Card]
    plots: list[Plot]
    energies: list[tuple[list[str], list[Row]]]
    scenarios: list[tuple[list[str], Row]]
    environments: list[tuple[Environment, list[Row]]]

    @property
    def several(self) -> str:
        """A sentence on how rows with several labels are counted; empty if rows have one label."""
        return SEVERAL if self.first["primary"] in OF_SEVERAL else ""


def html(material: Material) -> str:
    """Return the HTML page. Texts from its inputs, such as a model's name, are escaped."""
    style = (FOLDER / STYLE).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    swept = [sweep.record for sweep in material.sweeps]
    records = [*material.results, *swept, *material.tuned, *material.powers, *material.kernels]
    anchors = {id(record): f"record-{at}" for at, record in enumerate(records)}
    sections = [
        _section(group, f"group-{at}", anchors, material.deployments) for at, group in enumerate(groups(material.apart))
    ]
    return (
        _template().render(
            style=style,
            digest=digest,
            version=__version__,
            created=max((str(moment) for record in records if (moment := look(record, "created"))), default=None),
            sections=sections,
            swept=[sweeps.section(sweep, f"sweep-{at}", anchors) for at, sweep in enumerate(material.sweeps)],
            scores=glue.scores(material.results),
            kernels=[
                (record, kernel_plots.kernels(record, name=f"kernels-{at}"))
                for at, record in enumerate(material.kernels)
            ],
            tuned=[
                (record, record_plots.sensitivity(record, name=f"tuned-{at}"))
                for at, record in enumerate(material.tuned)
            ],
            powers=[
                (record, record_plots.power(record, name=f"power-{at}"), _power(record))
                for at, record in enumerate(material.powers)
            ],
            records=[
                (anchors[id(record)], record["file"], json.dumps(record, indent=1, ensure_ascii=False))
                for record in records
            ],
            number=number,
            reason=reason,
            is_number=lambda part: isinstance(part, Number),
        )
        + "\n"
    )


def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _section(
    results: list[Result], anchor: str, anchors: dict[int, str], deployments: list[tuple[str, Deployment]]
) -> Section:
    """Return the section for a group of results. PyTorch in FP32 comes first, if it is among them."""
    results = sorted(results, key=lambda result: (result["backend"], result["precision"]) != ("torch", "fp32"))
    names = names_of(results)
    reasons: list[str] = []
    rows, columns = [], html_columns(results)
    for name, result in zip(names, results, strict=True):
        cells = [html_cell(result) for _, html_cell in columns]
        reasons += [cell.reason for cell in cells if cell.reason and cell.reason not in reasons]
        notes = [reasons.index(cell.reason) + 1 if cell.reason else None for cell in cells]
        rows.append(Row(name, anchors[id(result)], result, cells, notes))
    others = [(name, result) for name, result in zip(names, results, strict=True) if result["precision"] != "fp32"]
    headings = [results[0]["primary"] if heading == METRIC else heading for heading, _ in columns]
    return Section(
        anchor,
        title(results[0]),
        results[0],
        answer_of(results, deployments),
        [drop for name, result in others if (drop := drop_of(name, result, deployments))],
        headings,
        _reference(results),
        rows,
        list(dict.fromkeys(reasons)),
        [row.name for row in rows if row.result.get("contention", {}).get("busy")],
        [detail for name, result in others if (detail := detail_of(name, result))],
        _cards(results, names),
        _plots(results, anchor),
        [(lines, alike) for lines, alike in _alike(rows, lambda row: describe(row.result["energy"])) if lines],
        [(describe_scenario(mlperf), row) for row in rows if (mlperf := row.result.get("mlperf"))],
        _alike(rows, lambda row: row.result["environment"]),
    )


def _reference(results: list[Result]) -> tuple[str, Cell] | None:
    """Return the name of the FP32 reference and the cell of its metric; None if the group has a result in FP32."""
    if any(result["precision"] == "fp32" for result in results):
        return None
    cell = reference_cell(results[0])
    return None if cell is None else (results[0]["agreement"]["reference"], cell)


def _alike(rows: list[Row], of: Callable[[Row], T]) -> list[tuple[T, list[Row]]]:
    """Group rows by the value that the function `of` returns for a row; return each value with its rows."""
    found: list[tuple[T, list[Row]]] = []
    for row in rows:
        its = next((same for value, same in found if value == of(row)), None)
        if its is None:
            found.append((of(row), [row]))
        else:
            its.append(row)
    return found


def _cards(results: list[Result], names: list[str]) -> list[Card]:
    """Return the cards with the best figures: metric, throughput, latency and energy.

    The card of the metric says "highest" only if the differences from all other results are more than chance.
    """
    primary, every = results[0]["primary"], set(range(len(results)))
    wanted: tuple[tuple[str, str, Pattern, str, bool, set[int]], ...] = (
        (primary, f"metrics.{primary}", ".4f", "", True, every),
        ("most rows a second", "throughput_per_s", ",.0f", " rows/s", True, every),
        ("shortest median latency", "latency_ms.p50", ",.2f", " ms", False, every),
        *((f"least energy per row{name}", ENERGY, joules, "", False, its) for name, its in _kinds(results).items()),
    )
    cards = []
    for label, key, pattern, unit, most, its in wanted:
        values = {at: value for at in sorted(its) if (value := known(results[at], key)) is not None}
        if not values:
            cards.append(Card(label))
            continue
        best = (max if most else min)(values, key=lambda at: values[at])
        shown = number(results[best], key, pattern)
        if key.startswith("metrics"):
            label, remark = _rank(results, best)
            beside = (*metric(results[best]).parts[1:], remark)
        else:
            beside = _beside(shown, results[0], names[0]) if 0 in its else ()
        cards.append(Card(label, (shown, unit), (names[best], *beside)))
    return cards


def _kinds(results: list[Result]) -> dict[str, set[int]]:
    """Return the groups of results whose energy totals are comparable: suffix of a label -> indices of results.

    Totals are comparable if they include the same components; the suffix names these, and is empty if there is only
    one group. A result without energy is in every group.
    """
    parts = [counted_in("energy", one) if joules_ends(one["energy"]) else None for one in results]
    kinds = list({str(one): one for one in parts if one is not None}.values())
    if len(kinds) < 2:
        return {"": set(range(len(results)))}
    return {f" ({', '.join(kind)})": {at for at, its in enumerate(parts) if its in (kind, None)} for kind in kinds}


def _rank(results: list[Result], best: int) -> tuple[str, str]:
    """Return the label for the card of the best metric, and a remark to show beside it.

    The label says "highest" only if the result is better than all others by more than chance, because one of many
    results is always highest by chance alone.
    """
    primary, others = results[best]["primary"], [one for at, one in enumerate(results) if at != best]
    if not others:
        return primary, ""
    try:
        tied = sum(not is_resolved(results[best], other) for other in others)
    except InputError:
        return primary, "; differences not tested, because predictions are missing"
    if not tied:
        return f"highest {primary}", ""
    count = "the other" if len(others) == 1 else f"{tied} of the {len(others)} others"
    return f"{primary}: no resolved difference", f"; the paired 95 % interval of its difference from {count} includes 0"


def _beside(shown: Number, baseline: Result, name: str) -> tuple[Number | str, ...]:
    """Return the parts of a text such as ", 2.1 times torch fp32": the ratio of a number to the baseline's, in words.

    A ratio below 1 is a percentage. The result is empty if the number is the baseline's own, or the baseline lacks it.
    """
    base = known(baseline, shown.key)
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
    """Return the axes that the metric is plotted against, each with the plot's caption.

    Energy has an axis for each group of comparable totals, and none if it was not measured.
    """
    bars = "Vertical bars: the 95 % interval."
    throughputs = tuple((result["throughput_per_s"],) * 3 for result in results)
    times = tuple((ms["p50"], ms["p50"], ms["p99"]) for ms in (result["latency_ms"] for result in results))
    of_windows = "horizontal bars: the 95 % interval, or the range if there are only a few windows"
    found = [
        (Axis("rows/s", "throughput_per_s", throughputs, less=False), f"Quality against throughput. {bars}"),
        (
            Axis("median latency, ms", "latency_ms.p50", times),
            f"Quality against latency; horizontal bars: up to the 99th percentile. {bars}",
        ),
        *(
            (
                Axis(f"energy per row, J{name}", ENERGY, _joules(results, its)),
                f"Quality against energy{name}; {of_windows}. {bars}",
            )
            for name, its in _kinds(results).items()
        ),
    ]
    return [(axis, caption) for axis, caption in found if any(axis.values)]


def _joules(results: list[Result], its: set[int]) -> tuple[Ends | None, ...]:
    """Return the energy per row of each result in J, with both ends; None for results whose index is not in `its`."""
    return tuple(joules_ends(one["energy"]) if at in its else None for at, one in enumerate(results))


def _power(record: PowerRecord) -> list[Number]:
    """Return the figures of a power record that were measured: energy, mean and peak power, duration."""
    patterns: dict[str, Pattern] = {
        "total_j": joules,
        "mean_power_w": ".4g",
        "peak_power_w": ".4g",
        "seconds": ".4g",
    }
    return [number(record, key, pattern) for key, pattern in patterns.items() if known(record, key) is not None]
