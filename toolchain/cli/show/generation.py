"""Show the result of `toolchain generate` on the terminal."""

from rich.box import SIMPLE
from rich.table import Table

from toolchain.base.amounts import counted
from toolchain.cli.show import put
from toolchain.energy.record import NOT_REQUESTED
from toolchain.energy.text import joules, reason
from toolchain.records.generation import CacheRatio, CacheRun, Generation

COLUMNS = ("cache", "first token ms", "prompt tokens/s", "step ms", "tokens/s", "MB/step", "GB/s", "of memory")
LEGEND = (
    "first token and step: medians; MB/step: weights, keys and values that a step reads, computed and not "
    "measured; GB/s: MB/step divided by the step's time; of memory: GB/s as a fraction of the memory bandwidth "
    "measured here"
)


def generation(record: Generation) -> None:
    """Print the generated texts, and the figures with each kind of key-value cache.

    Then print how many times longer the generation takes without a cache.
    """
    for one in record["texts"]:
        put(f"{one['prompt']} | {one['text']}")
    title = (
        f"{record['model']} on {record['backend']}, {record['device']}, {record['precision']}: "
        f"{counted(len(record['texts']), 'prompt')} in batches of {record['batch_size']}, "
        f"at most {counted(record['max_new_tokens'], 'new token')}"
    )
    asked = any(run["energy_reason"] != NOT_REQUESTED for run in record["runs"])
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in (*COLUMNS, *(("J/prompt token", "J/new token") if asked else ())):
        table.add_column(heading, justify="left" if heading == "cache" else "right", no_wrap=True)
    for run in record["runs"]:
        table.add_row(*_times(run), *((_joules(run)) if asked else ()))
    missing = {run["energy_reason"] for run in record["runs"]} - {None, NOT_REQUESTED}
    notes = [f"energy: not measured: {reason(code)} ({code})" for code in sorted(map(str, missing))]
    put(table, LEGEND, *notes, *map(_ratio, record["ratios"]))


def _times(run: CacheRun) -> list[str]:
    first, later = run["prefill"], run["decode"]
    moved = later["bytes_per_step"]
    return [
        run["cache"],
        f"{first['first_token_ms_p50']:.1f}",
        f"{first['tokens_per_s']:,.0f}",
        _number(later["step_ms_p50"], ".2f"),
        _number(later["tokens_per_s"], ",.1f"),
        _number(moved and moved / 1e6, ",.1f"),
        _number(later["gigabytes_per_s"], ".1f"),
        _number(later["bandwidth_share"], ".0%"),
    ]


def _joules(run: CacheRun) -> list[str]:
    return [joules(run["prefill"]["j_per_token"]), joules(run["decode"]["j_per_token"])]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _ratio(ratio: CacheRatio) -> str:
    same = "both give the same tokens" if ratio["tokens_equal"] else "THE TOKENS DIFFER"
    return (
        f"no cache takes {ratio['measured']:.2f}x the time of cache {ratio['cache']}; from the number of positions, "
        f"{ratio['predicted']:.2f}x is expected; {same}"
    )
