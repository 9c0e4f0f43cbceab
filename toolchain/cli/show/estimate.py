"""Show the bounds of `toolchain estimate` on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.records.roofline import EstimatedBounds


def estimated(found: EstimatedBounds) -> None:
    """Print the bounds by batch size and how to read them."""
    gpu, length = found["gpu"], found["length"]
    table = titled(
        f"{found['artefact']} as {found['precision']} on {gpu['name']}, {length['tokens']} tokens a row "
        f"({length['from']}): {found['kind']}"
    )
    for heading in ("batch", "µs, at least", "GEMMs", "memory", "bound by", "rows/s, at most"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("mJ/row, at least", f"{gpu['tdp_w']:g} W of it"):
        table.add_column(heading, justify="right")
    for one in found["bounds"]:
        least = one["mj_per_row_at_least"]
        table.add_row(
            str(one["batch"]),
            *(f"{1e3 * ms:,.1f}" for ms in (one["time_ms"], one["compute_ms"], one["memory_ms"])),
            one["bound"],
            f"{one['rows_per_s']:,.0f}",
            "-" if least is None else f"{least:.3f}",
            f"{one['mj_per_row_at_most_at_this_speed']:.3f}",
        )
    put(
        table,
        "GEMMs, memory: time, µs, that the operations of the GEMMs and the memory traffic take at the GPU's peak",
        _which(found),
        *_reading(gpu["tdp_w"], floor=found["at_least_reason"] is None),
    )
    put(f"source: {gpu['source']}")


def _which(found: EstimatedBounds) -> str:
    if found["bound_from"] == "kernels":
        return (
            "The bound of the kernels that TensorRT-RTX compiles: all their memory traffic counts, also what a cache "
            "keeps, so a small batch may be faster."
        )
    return f"The bound of the GEMMs and the weights alone, not of kernels: {found['bound_from_reason']}"


def _reading(tdp_w: float, *, floor: bool) -> list[str]:
    lines = [
        "Most runs take several times as long: the bounds exclude launches, and whatever keeps the GPU from its peak.",
        "The last column is the power limit times the time: the upper bound of the energy of a run at that speed.",
        f"A slower run, at r rows/s, uses at most {tdp_w:g}/r J a row.",
    ]
    if not floor:
        lines.append(
            "There is no lower bound of the energy: data sheets give no idle power. If you know it, add --idle-power W."
        )
    return lines
