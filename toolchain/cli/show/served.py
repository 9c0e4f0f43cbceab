"""Show results of `toolchain generate --backend openai` on the terminal.

`served` shows one result, `compared_served` compares several.
"""

from rich.box import SIMPLE
from rich.table import Table

from toolchain.base.amounts import counted
from toolchain.cli.show import put
from toolchain.energy.record import NOT_REQUESTED
from toolchain.energy.text import joules, reason
from toolchain.records.served_generation import ServedComparison, ServedComparisonList, ServedGeneration, ServedRun

COLUMNS = ("streams", "requests", "tokens/s", "first token ms", "p99", "between tokens ms", "p99", "ms/token")
JOULES = ("J/prompt token", "J/new token")
LEGEND = (
    "streams: concurrent requests; first token, between tokens and ms/token: medians; all tokens are the server's own "
    "count"
)
RATIOS = ("streams", "tokens/s", "first token", "first token p99", "ms/token", "J/new token")


def served(record: ServedGeneration) -> None:
    """Print the replies, and the figures for each number of concurrent requests (streams)."""
    for one in record["texts"]:
        put(f"{one['prompt']} | {one['text']}")
    runs = record["runs"]
    asked = any(run["energy_reason"] != NOT_REQUESTED for run in runs)
    table = _table(
        f"{record['model']} at {record['url']}: {counted(len(record['texts']), 'prompt')}, "
        f"at most {counted(record['max_new_tokens'], 'new token')}",
        (*COLUMNS, *(JOULES if asked else ())),
    )
    for run in runs:
        table.add_row(*_figures(run), *(_energies(run) if asked else ()))
    missing = {run["energy_reason"] for run in runs} - {None, NOT_REQUESTED}
    notes = [f"energy: not measured: {reason(code)} ({code})" for code in sorted(map(str, missing))]
    if record["gpus"] and not missing:
        notes.append(f"energy: of {counted(len(record['gpus']), 'GPU')}: {', '.join(record['gpus'])}")
    put(table, LEGEND, *notes, *_remarks(runs))


def _table(title: str, headings: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _figures(run: ServedRun) -> list[str]:
    return [
        str(run["concurrency"]),
        f"{run['requests']:,}",
        f"{run['tokens_per_s']:,.1f}",
        *(
            "-" if value is None else f"{value:.2f}"
            for value in (
                run["first_token_ms_p50"],
                run["first_token_ms_p99"],
                run["inter_token_ms_p50"],
                run["inter_token_ms_p99"],
                run["ms_per_token_p50"],
            )
        ),
    ]


def _energies(run: ServedRun) -> list[str]:
    return [joules(run["j_per_prompt_token"]), joules(run["j_per_generated_token"])]


def _remarks(runs: list[ServedRun]) -> list[str]:
    """Return remarks for two cases: several tokens arrived at once, or the server took prompts from its cache.

    In these cases, some of the figures can mislead.
    """
    found = []
    tokens, parts = (sum(counts) for counts in zip(*((r["generated_tokens"], r["parts"]) for r in runs), strict=True))
    if parts != tokens:
        found.append(f"{tokens:,} tokens arrived in {parts:,} parts: `between tokens` is the time between two parts")
    if cached := sum(run["cached_prompt_tokens"] or 0 for run in runs):
        every = sum(run["prompt_tokens"] for run in runs)
        found.append(
            f"the server took {cached:,} of {every:,} prompt tokens from its cache: first token and J/prompt token are "
            "too low. Turn the cache off in the server to measure prompts."
        )
    return found


def compared_served(record: ServedComparisonList) -> None:
    """Print each candidate's ratios to the baseline."""
    for one in record["comparisons"]:
        put(_ratios(one), f"{one['texts_equal']} of {one['prompts']} replies are the same")
    put("ratios: candidate divided by baseline; above 1 is better for tokens/s, and worse for times and joules")


def _ratios(one: ServedComparison) -> Table:
    boards = "" if one["gpus"] == [0, 0] else f" ({one['gpus'][0]} and {one['gpus'][1]} GPUs)"
    table = _table(f"{one['candidate']} against {one['baseline']}{boards}", RATIOS)
    for ratio in one["ratios"]:
        values = (
            ratio["tokens_per_s"],
            ratio["first_token_ms_p50"],
            ratio["first_token_ms_p99"],
            ratio["ms_per_token_p50"],
            ratio["per_generated_token_j"],
        )
        table.add_row(str(ratio["concurrency"]), *("-" if value is None else f"{value:.2f}" for value in values))
    return table
