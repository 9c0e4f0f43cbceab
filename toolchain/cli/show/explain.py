"""Show on the terminal why a graph or an engine is slower or less accurate than expected."""

from rich.table import Table

from toolchain.base.amounts import counted
from toolchain.cli.show import BUSY, folded, put, titled
from toolchain.engine.releases import RELEASES
from toolchain.records.explain import ClippedTensor, ExplainedGemm, ExplainedPlan, ExplainRecord, HalfTensor


def explained(record: ExplainRecord) -> None:
    """Print the explanation of a graph: why it is slower or less accurate than expected.

    It shows the fraction of work in integers, the speed-up, the GEMMs in float and why, the largest errors, the clipped
    tensors, and advice.
    """
    put(*_summary(record), *_in_float(record["products"]), *_noisy(record["products"]), *_clipped(record["clipped"]))
    put(*_float16(record["float16"]))
    put(*(f"advice: {line}" for line in record["advice"]))


def _summary(record: ExplainRecord) -> list[str]:
    shares, speed, conversions = record["share_of_macs"], record["speed"], record["conversions"]
    lines = [
        f"{record['artefact']}, on {record['rows']}, compared with {record['reference']}",
        f"GEMM work in {'FP8' if record['precision'] == 'fp8' else 'integers'}: {shares['integers']:.1%} in the graph, "
        f"{shares['tensorrt']:.1%} in TensorRT (needs 8 bits, zero point 0), {shares['on_this_cpu']:.1%} on this CPU",
    ]
    for title, found in (("in the graph", conversions["graph"]), ("on this CPU", conversions["on_this_cpu"])):
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(found.items()))
        lines.append(f"nodes that only convert datatypes, {title}: {counts or 'none'}")
    if record["smoothing_muls"]:
        lines.append(f"SmoothQuant added {record['smoothing_muls']} Mul nodes")
    if speed:
        lines.append(
            f"speed-up over FP32 on this CPU: {speed['measured']:.2f} measured; faster GEMMs alone would give "
            f"{speed['predicted_best']:.2f} (GEMMs take {speed['products_share_of_fp32_time']:.0%} of FP32's time; "
            f"integer GEMMs are {speed['integer_to_float_product_speed']:.1f} times as fast)"
        )
        if speed.get("busy"):
            lines.append(BUSY)
    return lines


def explained_plan(record: ExplainedPlan) -> None:
    """Print how an engine was built, the counts of its layers by kind, and advice."""
    table = titled(record["artefact"])
    table.add_column("what")
    table.add_column("found")
    layers = record["layers"]
    sm = f"{record['sm'] // 10}.{record['sm'] % 10}"
    release = f"{RELEASES[record['backend']].name} {record['tensorrt']}"
    table.add_row("built for", f"{record['gpu'] or 'any GPU'}, compute capability {sm}, {release}")
    table.add_row("precision", f"{record['precision']}, {record['layout']}, attention {record['options']['attention']}")
    for profile in record["profiles"]:
        table.add_row("profile", f"batch {profile['batch']}, length {profile['length']}")
    for name, counts in (("by type", layers["by_type"]), ("by precision", layers["by_precision"])):
        table.add_row(name, ", ".join(f"{kind} {count}" for kind, count in (counts or {}).items()))
    for name, count in (
        ("layers", layers["layers"]),
        ("GEMMs", layers["products"]),
        ("GEMMs in INT8", layers["int8_products"]),
        *([("GEMMs in FP8", layers["fp8_products"])] if "fp8_products" in layers else ()),
        ("fused attention", layers["fused_attention"]),
        ("reformats", layers["reformats"]),
    ):
        table.add_row(name, "not known" if count is None else str(count))
    table.add_row("missing scales", str(record["missing_scales"]))
    put(
        table,
        "reformats: layers that only change the memory format of a tensor; layout: padded or packed rows",
        *record["advice"],
    )


def _in_float(gemms: list[ExplainedGemm]) -> list[Table | str]:
    """Return a table of the GEMMs that do not run in integers, grouped by reason, and its legend.

    A GEMM is in it if it runs in float in TensorRT, on this CPU, or in both.
    """
    reasons: dict[str, list[str]] = {}
    for one in gemms:
        if one["reason"]:
            where = "TensorRT and this CPU" if not one["integers"] else "TensorRT" if one["on_this_cpu"] else "this CPU"
            reasons.setdefault(f"{where}: {one['reason']}", []).append(one["name"])
    if not reasons:
        return []
    table = titled("Not in integers")
    table.add_column("where, and why")
    table.add_column("GEMMs", no_wrap=True)
    for reason, names in reasons.items():
        table.add_row(reason, "\n".join(folded(names)))
    return [table, "GEMMs: matrix products by their names in the graph; (6): one in each of 6 layers"]


def _noisy(gemms: list[ExplainedGemm]) -> list[Table | str]:
    """Return a table of the GEMMs with the largest errors at their outputs, and its legend."""
    measured = sorted((one["snr_db"], one["name"], one["macs"]) for one in gemms if one["snr_db"] is not None)
    if not measured:
        return []
    table = _ranking("Largest error at the output", "GEMM", "signal to noise, dB", "fraction of the work")
    for snr_db, name, macs in measured[:5]:
        table.add_row(name, f"{snr_db:.1f}", f"{macs:.1%}")
    return [
        table,
        "signal to noise: of the GEMM's output, where the noise is the error against FP32; 20 dB is an error of a "
        "tenth of the signal; work: the multiplications of all GEMMs",
    ]


def _clipped(tensors: list[ClippedTensor]) -> list[Table | str]:
    """Return a table of the tensors with values outside their calibration range, and its legend."""
    if not tensors:
        return []
    title = f"Clipped ({counted(len(tensors), 'tensor')})"
    table = _ranking(title, "tensor", "values outside the range", "largest / end of the range")
    for one in tensors[:10]:
        table.add_row(one["tensor"], f"{one['share']:.3%}", f"{one['reach']:.1f}")
    return [table, "range: the calibration range; quantization clips each value outside it to its end"]


def _float16(tensors: list[HalfTensor]) -> list[Table | str]:
    """Return a table of the float16 tensors with the largest values, and its legend."""
    if not tensors:
        return []
    table = _ranking("Largest in float16", "tensor", "largest magnitude", "fraction of 65,504")
    for one in tensors[:5]:
        table.add_row(one["tensor"], f"{one['amax']:.3g}", f"{one['share']:.1%}")
    return [table, "65,504: the largest number of float16; a larger value becomes infinity"]


def _ranking(title: str, what: str, *numbers: str) -> Table:
    table = titled(title)
    table.add_column(what, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table
