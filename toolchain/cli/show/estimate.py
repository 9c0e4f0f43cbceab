"""Show the bounds of `toolchain estimate` on the terminal."""

from toolchain.cli.show import put, titled
from toolchain.records.roofline import EstimatedBounds


def estimated(found: EstimatedBounds) -> None:
    """Print a table of the bounds by batch size, and how to read it."""
    gpu, length = found["gpu"], found["length"]
    table = titled(
        f"{found['artefact']} as {found['precision']} on {gpu['name']}, {length['tokens']} tokens per row "
        f"({length['from']}): {found['kind']}"
    )
    known = found["kernels_reason"] is None
    columns = ("batch", "µs, at least", "GEMMs", "memory", *["kernels"] * known, "bound by", "rows/s, at most")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("mJ/row, at least", f"mJ/row at {gpu['tdp_w']:g} W"):
        table.add_column(heading, justify="right")
    for one in found["bounds"]:
        least = one["mj_per_row_at_least"]
        times = (one["time_ms"], one["compute_ms"], one["memory_ms"], one["kernels_ms"])
        table.add_row(
            str(one["batch"]),
            *(f"{1e3 * ms:,.1f}" for ms in times if ms is not None),
            one["bound"],
            f"{one['rows_per_s']:,.0f}",
            "-" if least is None else f"{least:.3f}",
            f"{one['mj_per_row_at_most_at_this_speed']:.3f}",
        )
    put(
        table,
        "GEMMs, memory: time in µs that the operations of the GEMMs, and the memory traffic, take at the GPU's peak",
        _which(found),
        *_reading(gpu["tdp_w"], floor=found["at_least_reason"] is None),
    )
    put(f"source: {gpu['source']}")


def _which(found: EstimatedBounds) -> str:
    if found["kernels_reason"] is None:
        return (
            "kernels: least time of the kernels that TensorRT-RTX compiles, with all their memory traffic. A run may "
            "be faster than this if the GPU's cache serves a part of the traffic, but never faster than the column "
            "`µs, at least`."
        )
    return f"The bound covers only the GEMMs and the weights. There are no times of kernels: {found['kernels_reason']}"


def _reading(tdp_w: float, *, floor: bool) -> list[str]:
    lines = [
        "Most runs take several times as long: the bounds leave out kernel launches, and everything else that "
        "keeps a GPU below its peak.",
        "The last column is the power limit times the least time: a run that takes the least time uses at most that.",
        f"A slower run, at r rows/s, uses at most {tdp_w:g}/r J per row.",
    ]
    if not floor:
        lines.append(
            "There is no lower bound of the energy: data sheets give no idle power. If you know it, add --idle-power W."
        )
    return lines
