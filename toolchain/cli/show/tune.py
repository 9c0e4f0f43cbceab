"""Show the result of `toolchain tune` on the terminal: the GEMMs to exclude from INT8."""

from toolchain.base.amounts import counted
from toolchain.cli.show import put, titled
from toolchain.records.quantization import SensitivityRecord
from toolchain.records.tune import TuneRecord

# If the excluded GEMMs have more than this fraction of all multiplications, INT8 loses most of its speed-up. Better
# calibration ranges may make the exclusion unnecessary.
MUCH = 0.3


def tuned(record: TuneRecord) -> None:
    """Print the GEMMs by their effect on the logits, the chosen set, and the command that builds with it."""
    table = titled(f"{record['bundle']}: the noisiest GEMMs")
    for heading in ("GEMM", "SNR, dB", "effect", "drop", "work", "exclude"):
        table.add_column(heading, justify="left" if heading == "GEMM" else "right", no_wrap=True)
    measured = [one for one in record["products"] if one["effect"] is not None]
    for one in sorted(measured, key=lambda one: -(one["effect"] or 0)):
        table.add_row(*_cells(one), "yes" if one["name"] in record["keep"] else "")
    put(
        table,
        "SNR: at the GEMM's output; effect: distance of the logits from FP32; drop: expected drop in points; all three "
        "with only this GEMM in INT8; work: fraction of all multiplications",
        _verdict(record),
        f"{record['evaluations']} graphs evaluated; record {record['files']['record']}, plot {record['files']['plot']}",
        f"next: {record['next']}",
    )


def _cells(one: SensitivityRecord) -> list[str]:
    return [
        one["name"],
        f"{one['snr_db']:.1f}",
        f"{one['effect']:.4f}",
        f"{one['drop_points']:.2f}",
        f"{one['macs']:.1%}",
    ]


def _verdict(record: TuneRecord) -> str:
    """Return a sentence that names how much to exclude from INT8, and whether that is expected to be enough."""
    expected = (
        f"a drop of {record['expected_drop_points']:.2f} points is expected, {record['max_drop_points']:g} is allowed"
    )
    share = record["keep_share_of_macs"]
    text = f"exclude {counted(len(record['keep']), 'GEMM')}, {share:.1%} of the work, from INT8: {expected}"
    if not record["keep"]:
        text = f"no GEMM needs to be excluded from INT8: {expected}"
    if record["residual"]:
        drop = record["residual"]["expected_drop_points"]
        text += f"; residual additions can read INT8 too, with an expected drop of {drop:.2f} points"
    if share > MUCH:
        text += ". That is a large part: first try --calib-method auto"
    if record["enough"]:
        return text
    nearest = text if record["keep"] else f"excludes nothing: {expected}"
    return f"no set of GEMMs within the budget keeps the drop small enough; the nearest: {nearest}"
