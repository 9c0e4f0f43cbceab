"""What a bundle could do at best on a GPU that is not here."""

from typing import Any

from toolchain.cli.show import put, titled


def predicted(found: dict[str, Any]) -> None:
    """Print the bounds by batch, and what they do and do not say."""
    gpu, length = found["gpu"], found["length"]
    table = titled(
        f"{found['artefact']} as {found['precision']} on {gpu['name']}, {length['tokens']} tokens a row "
        f"({length['from']}): {found['kind']}"
    )
    for heading in ("batch", "µs, at least", "products", "memory", "bound by", "rows/s, at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("mJ/row, at least", f"{gpu['tdp_w']:g} W of it"):
        table.add_column(heading, justify="right")
    for one in found["bounds"]:
        least = one["mj_per_row_at_least"]
        table.add_row(
            str(one["batch"]),
            *(f"{1e3 * one[key]:,.1f}" for key in ("time_ms", "compute_ms", "memory_ms")),
            one["bound"],
            f"{one['rows_per_s']:,.0f}",
            "-" if least is None else f"{least:.3f}",
            f"{one['mj_per_row_at_most_at_this_speed']:.3f}",
        )
    put(table, *_reading(gpu["tdp_w"], floor=found["at_least_reason"] is None), f"source: {gpu['source']}")


def _reading(tdp_w: float, *, floor: bool) -> list[str]:
    lines = [
        "No run of these products, one after the other on this card, takes less time; most take several times as long:",
        "launches, what is not a product, and what keeps a card from its peak are not in it.",
        "The last column is the power limit times the time: the most that a run at that speed draws, in mJ a row.",
        f"A slower run, at r rows/s, draws at most {tdp_w:g}/r J a row.",
    ]
    if not floor:
        lines.append("Energy has no floor here: data sheets give no idle power. If you know it: --idle-power W.")
    return lines
