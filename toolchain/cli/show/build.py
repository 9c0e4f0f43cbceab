"""What a build made, or would make."""

from typing import Any

from toolchain.cli.show import folded, put
from toolchain.cli.show.compare import compared


def built(done: dict[str, Any]) -> None:
    """Print what a build made, or would make."""
    if "would_do" in done:
        put(f"would make {done['bundle']}: {', '.join(done['would_do'])}")
        return
    if done["up_to_date"]:
        put(f"{done['bundle']} is up to date: nothing done ({', '.join(done['skipped'])}).")
        if "gate" in done:
            compared({"comparisons": done["gate"]})
        return
    put(f"{done['bundle']}: {', '.join(done['done'])} done" + _and_skipped(done["skipped"]))
    if "export" in done:
        parity = done["export"]["parity"]
        put(f"  model.onnx differs from PyTorch by at most {parity['max_abs_logit_difference']:.1e}")
    if "trials" in done.get("calibrate", {}):
        put(*_chosen(done["calibrate"]))
    if "quantize" in done:
        put(*_quantized(done["quantize"]))
    if "engine" in done:
        put(*_engine(done["engine"]))
    if "gate" in done:
        compared({"comparisons": done["gate"]})
    put(f"next: toolchain eval {done['bundle']}{' --backend trt' if 'engine' in done else ''}")


def _quantized(record: dict[str, Any]) -> list[str]:
    """Return what runs in integers on this CPU, and what was kept out of INT8."""
    kept = record["views"]["model.int8.onnx"]["kept"]
    lines = [f"  kept out of INT8: {', '.join(folded(kept))}"] if kept else []
    for file, found in record["products_on_cpu"].items():
        total = found["integer"] + found["float"]
        lines.append(f"  {file}: {found['integer']} of {total} matrix products in integers on this CPU")
    return lines


def _engine(record: dict[str, Any]) -> list[str]:
    """Return what an engine is and what its layers became."""
    layers = record["layers"]
    lines = [
        f"  {record['file']}: {record['precision']} for {record['gpu']}, {record['plan_bytes'] / 1e6:.0f} MB, "
        f"built in {record['build_s']:.0f} s"
    ]
    if layers["products"] is not None:
        lines.append(
            f"  {layers['layers']} layers: {layers['int8_products']} of {layers['products']} products in INT8, "
            f"{layers['fused_attention']} fused attentions, {layers['reformats']} changes of format"
        )
    return lines


def _chosen(calibration: dict[str, Any]) -> list[str]:
    """Return what `auto` chose and why."""
    best, *others = calibration["trials"]
    smoothing = "no smoothing" if best["smooth"] is None else f"smoothing {best['smooth']:g}"
    far = f"KL {best['kl']:.2g}, " if best["kl"] is not None else ""
    return [
        f"  ranges: {best['method']}, {smoothing}: the nearest to FP32 of {len(others) + 1} on "
        f"{calibration['chosen_on']['rows']} train rows ({far}logits {best['rms']:.2g} off)"
    ]


def _and_skipped(skipped: list[str]) -> str:
    return f"; {', '.join(skipped)} unchanged" if skipped else ""
