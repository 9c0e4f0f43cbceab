"""Show results side by side on the terminal."""

from rich.table import Table

from toolchain.cli.show import BUSY, put, titled
from toolchain.energy import text
from toolchain.evaluation.mlperf import text as mlperf
from toolchain.records.demo import DemoRecord
from toolchain.records.result import Result
from toolchain.report.table import headings, rows, title

LEGEND = (
    "agree: fraction of rows with the label of FP32; diff: largest difference of a logit from FP32; p50, p99: "
    "percentiles of the latency of one row; util: percentage of this device's GEMM throughput that real tokens use; "
    "MB: peak memory of the process"
)


def result(one: Result) -> None:
    """Print one result and the file that it was saved in."""
    put(
        _table([one]),
        LEGEND,
        *_busy([one]),
        *_stages(one),
        *text.describe(one["energy"]),
        *(mlperf.describe(scenario) if (scenario := one.get("mlperf")) else []),
        f"saved in {one['file']}",
        "next: toolchain report RESULT..., which puts several results side by side",
    )


def demo(record: DemoRecord) -> None:
    """Print the results of the demo, its files and the next command."""
    put(
        _table(record["results"]),
        LEGEND,
        *_busy(record["results"]),
        *(f"{name}: {place}" for name, place in _places(record).items()),
        "next: toolchain build -m CHECKPOINT --task sst2 --data DIR --precision int8",
    )


def _places(record: DemoRecord) -> dict[str, str]:
    return {"bundle": record["build"]["bundle"], "report": record["report"], "page": record["page"]}


def _stages(one: Result) -> list[str]:
    """Return a line about how much the second stage of a cascade ran; nothing without a cascade."""
    if not (found := one.get("cascade")):
        return []
    return [
        f"the second stage got {found['passed_on']:.0%} of the rows and {found['passed_on_tokens']:.0%} of the tokens"
    ]


def _busy(results: list[Result]) -> list[str]:
    return [BUSY] if any(one.get("contention", {}).get("busy") for one in results) else []


def _table(results: list[Result]) -> Table:
    table = titled(title(results[0]), narrow=True)
    for index, heading in enumerate(headings(results)):
        table.add_column(heading.replace(" ms", "\nms"), justify="right" if index > 2 else "left", no_wrap=True)
    for cells in rows(results):
        table.add_row(*cells)
    return table
