"""The plots of results on the HTML page: metric against cost, latency percentiles, padding, and lengths of rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from toolchain.records.result import Result
from toolchain.report.svg import INK, SERIES, SOFT, draw
from toolchain.report.table import names_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Width of a plot in inches: about that of a phone, so that its text stays readable there.
WIDTH = 4.6

# Height in inches of a bar, and of a row of a legend.
ROW = 0.21

MARKERS = "osD^vPX*"
BINS = 30
PERCENTILES: tuple[Literal["p50", "p90", "p95", "p99"], ...] = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Plot:
    """A plot for the HTML page: an SVG element, its caption, and the keys and files that its numbers are from."""

    svg: str
    caption: str
    keys: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """The horizontal axis of a plot: its label, the key of its numbers, and a value for each result.

    A value has a lower and an upper end, and is None if it was not measured. `less` is True if smaller is better.
    """

    label: str
    key: str
    values: tuple[tuple[float, float, float] | None, ...]
    less: bool = True


def against(results: list[Result], cost: Axis, *, name: str, caption: str) -> Plot:
    """Return a plot of the metric with its interval against a cost or a throughput; the Pareto front is a dashed line.

    Results without this cost are not shown. The others keep the colour and marker that they have in every plot.
    """
    primary, names = results[0]["primary"], names_of(results)
    known = [(at, *ends) for at, ends in enumerate(cost.values) if ends is not None]
    metric = [results[at]["metrics"][primary] for at, *_ in known]
    front = pareto([x for _, x, *_ in known], metric, less=cost.less)

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot([known[at][1] for at in front], [metric[at] for at in front], "--", color=SOFT, linewidth=1)
        for (at, x, left, right), y in zip(known, metric, strict=True):
            low, high = results[at]["metrics_ci95"][primary]
            colour, up = SERIES[at % len(SERIES)], [[max(0.0, y - low)], [max(0.0, high - y)]]
            axes.errorbar(
                x, y, yerr=up, xerr=[[x - left], [right - x]], fmt="none", ecolor=colour, capsize=2.5, elinewidth=1
            )
            axes.plot(x, y, MARKERS[at % len(MARKERS)], color=colour, label=names[at])
        spread(axes, [end for _, *ends in known for end in ends])
        axes.set(xlabel=f"{cost.label} ({'less' if cost.less else 'more'} is better)", ylabel=primary)
        figure.legend(loc="outside upper left", ncols=2, fontsize="small")

    description = "; ".join(
        f"{names[at]}: {primary} {y:.4f} at {x:.4g}" for (at, x, *_), y in zip(known, metric, strict=True)
    )
    height = 2.9 + ROW * ((len(known) + 1) // 2)
    svg = draw(paint, name=name, size=(WIDTH, height), title=f"{primary} against {cost.label}", description=description)
    if len(front) > 1:
        caption += " Dashed line: the results that no other result beats on both axes."
    keys = (f"metrics.{primary}", f"metrics_ci95.{primary}", cost.key)
    return Plot(svg, caption, keys, _files([results[at] for at, *_ in known]))


def pareto(costs: Sequence[float], gains: Sequence[float], *, less: bool) -> list[int]:
    """Return the indices of the Pareto front (no other point is better in both cost and gain), best cost first.

    `less` says whether a smaller cost is better; a larger gain always is.
    """
    order = sorted(range(len(costs)), key=lambda at: (costs[at] if less else -costs[at], -gains[at]))
    front: list[int] = []
    for at in order:
        if not front or gains[at] > gains[front[-1]]:
            front.append(at)
    return front


def latency(results: list[Result], *, name: str) -> Plot:
    """Return a plot of the latency percentiles of each runtime for a single row."""

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        for at, result in enumerate(results):
            times = [result["latency_ms"][key] for key in PERCENTILES]
            colour = SERIES[at % len(SERIES)]
            axes.plot(times, [at] * len(times), "-", color=colour, linewidth=1.5)
            for step, time_ms in enumerate(times):
                axes.plot(time_ms, at, "o", color=colour, markersize=8 - 1.5 * step, alpha=1 - 0.15 * step)
        spread(axes, [result["latency_ms"][key] for result in results for key in PERCENTILES])
        name_rows(axes, names_of(results))
        axes.set_xlabel("latency of one row, text to logits, ms")

    description = "; ".join(
        f"{label}: " + ", ".join(f"{key} {result['latency_ms'][key]:.3g} ms" for key in PERCENTILES)
        for label, result in zip(names_of(results), results, strict=True)
    )
    svg = draw(paint, name=name, size=(WIDTH, 1 + 1.4 * ROW * len(results)), title="Latency", description=description)
    caption = "Latency of single rows: the median (large), then the 90th, 95th and 99th percentile (small)."
    return Plot(svg, caption, tuple(f"latency_ms.{key}" for key in PERCENTILES), _files(results))


def padding(results: list[Result], *, name: str) -> Plot | None:
    """Return a plot of real tokens and padding in the batches of each runtime; None if no result has these counts."""
    known = [result for result in results if "tokens" in result]
    if not known:
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        places = range(len(known))
        real = [result["tokens"]["real"] for result in known]
        padded = [result["tokens"]["slots"] - result["tokens"]["real"] for result in known]
        axes.barh(places, real, color=SERIES[0], height=0.6, label="real tokens")
        axes.barh(places, padded, left=real, color=SERIES[1], height=0.6, label="padding")
        name_rows(axes, names_of(known))
        axes.set_xlabel("positions computed")
        figure.legend(loc="outside upper left", ncols=2, fontsize="small")

    pairs = zip(names_of(known), known, strict=True)
    description = "; ".join(f"{label}: {result['tokens']['padding_efficiency']:.1%} real" for label, result in pairs)
    svg = draw(paint, name=name, size=(WIDTH, 1.3 + 1.4 * ROW * len(known)), title="Padding", description=description)
    keys = ("tokens.real", "tokens.slots")
    return Plot(svg, "Positions computed: tokens of the texts, and padding.", keys, _files(known))


def lengths(results: list[Result], *, name: str) -> Plot | None:
    """Return a histogram of row lengths in tokens; None if no result has them.

    The first result that has them is enough, because all results have the same tokenizer and rows.
    """
    known = next((result for result in results if result.get("tokens", {}).get("lengths")), None)
    if known is None:
        return None
    pairs = known["tokens"]["lengths"]

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        tokens, rows = zip(*pairs, strict=True)
        step = -(-(max(tokens) - min(tokens) + 1) // BINS)
        edges = [edge - 0.5 for edge in range(min(tokens), max(tokens) + 1 + step, step)]
        axes.hist(tokens, bins=edges, weights=rows, color=SERIES[0], rwidth=0.9)
        axes.set(xlabel="tokens per row, special tokens included", ylabel="rows")

    description = f"from {pairs[0][0]} to {pairs[-1][0]} tokens per row"
    svg = draw(paint, name=name, size=(WIDTH, 2.6), title="Lengths", description=description)
    return Plot(svg, "Lengths of the rows.", ("tokens.lengths",), (known["file"],))


def _files(results: list[Result]) -> tuple[str, ...]:
    return tuple(result["file"] for result in results)


def name_rows(axes: "Axes", names: list[str]) -> None:
    """Label the rows of a horizontal bar or dot plot with `names`, the first one on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def spread(axes: "Axes", values: Sequence[float]) -> None:
    """Set the scale of the horizontal axis: linear from 0, or logarithmic if the values span a factor of 8 or more."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values), max(values)
    if low <= 0 or high < 8 * low:
        axes.set_xlim(0, 1.08 * high)
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 300 * low else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
