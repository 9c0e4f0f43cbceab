"""What a person reads on the terminal: tables first, then the next step."""

import re
from collections import Counter
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from toolchain import report

MARKS = {"ok": "ok", "missing": "-", "broken": "!!"}

MUCH = 0.3
"""Share of the work from which keeping it out of INT8 is no remedy."""

WIDTH = 100
"""What the table of results needs; a narrower terminal wraps it, rather than losing digits."""


def put(*things: object) -> None:
    """Print things as wide as the widest table needs."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, WIDTH)
    for thing in things:
        console.print(thing)


def _results_table(results: list[dict[str, Any]]) -> Table:
    """Return results side by side."""
    table = Table(title=report.title(results[0]), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for index, heading in enumerate(report.headings(results)):
        table.add_column(heading, justify="right" if index > 2 else "left", no_wrap=True)
    for cells in report.rows(results):
        table.add_row(*cells)
    return table


def result(one: dict[str, Any]) -> None:
    """Print one result and where it was kept."""
    energy = one["energy"]
    note = f"energy: {energy['status']} ({energy['reason']})"
    put(_results_table([one]), note, f"kept in {one['file']}; side by side: toolchain report RESULT...")


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
        put(*_quantised(done["quantize"]))
    if "engine" in done:
        put(*_engine(done["engine"]))
    if "gate" in done:
        compared({"comparisons": done["gate"]})
    put(f"next: toolchain eval {done['bundle']}{' --backend trt' if 'engine' in done else ''}")


def _quantised(record: dict[str, Any]) -> list[str]:
    """Return what runs in integers on this CPU, and what was kept out of INT8."""
    kept = record["views"]["model.int8.onnx"]["kept"]
    lines = [f"  kept out of INT8: {', '.join(_folded(kept))}"] if kept else []
    for file, found in record["products_on_cpu"].items():
        total = found["integer"] + found["float"]
        lines.append(f"  {file}: {found['integer']} of {total} matrix products in integers on this CPU")
    return lines


def _engine(record: dict[str, Any]) -> list[str]:
    """Return what an engine is and what its layers became."""
    layers = record["layers"]
    lines = [f"  {record['file']}: {record['precision']} for {record['gpu']}, {record['plan_bytes'] / 1e6:.0f} MB, "
             f"built in {record['build_s']:.0f} s"]  # fmt: skip
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
    return [f"  ranges: {best['method']}, {smoothing}: the nearest to FP32 of {len(others) + 1} on "
             f"{calibration['chosen_on']['rows']} train rows ({far}logits {best['rms']:.2g} off)"]  # fmt: skip


def _and_skipped(skipped: list[str]) -> str:
    return f"; {', '.join(skipped)} unchanged" if skipped else ""


def compared(done: dict[str, Any]) -> None:
    """Print drops with their bounds and verdicts, and what the rows can tell at all."""
    records = done["comparisons"]
    first = records[0]
    title = f"{first['task']} {first['split']}, {first['n']} rows: {first['metric']} against {first['baseline_name']}"
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    bounds = f"drop, points [{100 * first['confidence']:g} % each side]"
    for heading in ("candidate", "from", "to", bounds, "lost", "gained", "p", "verdict"):
        table.add_column(heading, justify="left" if heading in ("candidate", "verdict") else "right", no_wrap=True)
    for record in records:
        table.add_row(*_comparison(record))
    put(table, *dict.fromkeys(line for record in records for line in _reading(record)))


def _comparison(record: dict[str, Any]) -> list[str]:
    low, high = ("?" if bound is None else f"{bound:+.2f}" for bound in record["bounds_points"])
    flips, p = record["flips"], record["p_value"]
    return [
        record["candidate_name"],
        f"{record['baseline']:.4f}",
        f"{record['candidate']:.4f}",
        f"{record['drop_points']:+.2f} [{low}, {high}]",
        str(flips["lost"]) if flips else "-",
        str(flips["gained"]) if flips else "-",
        "-" if p is None else f"{p:.3f}",
        record["verdict"] or "-",
    ]


def _reading(record: dict[str, Any]) -> list[str]:
    """Return what the rows can show at all."""
    smallest = record["detectable_points"]
    if smallest is None:
        return []
    return [f"{record['candidate_name']}: a true drop of {smallest:.2f} points would show 4 times in 5 "
            f"with {record['n']} rows"]  # fmt: skip


def verified(found: dict[str, Any]) -> None:
    """Print each case with its difference and tolerance."""
    table = Table(title=f"{found['artefact']}, {found['rows']}", title_justify="left", box=SIMPLE)
    for heading in ("case", "difference", "allowed", "", "note"):
        table.add_column(heading, justify="right" if heading in ("difference", "allowed") else "left")
    for case in found["cases"]:
        numbers = ("-" if case[key] is None else f"{case[key]:.1e}" for key in ("difference", "tolerance"))
        table.add_row(case["name"], *numbers, "ok" if case["passed"] else "FAILED", case["note"])
    put(table)


def explained(found: dict[str, Any]) -> None:
    """Print what stays out of integers and why, what is clipped, where the error is, the speed, and advice."""
    work, speed = found["share_of_macs"], found["speed"]
    lines = [
        f"{found['artefact']}, on {found['rows']}, compared with {found['reference']}",
        f"work in integers: {work['integers']:.1%} by the graph, {work['tensorrt']:.1%} as TensorRT wants it "
        f"(int8, zero point 0), {work['on_this_cpu']:.1%} on this CPU",
    ]
    for title, kinds in (("in the graph", "graph"), ("as this CPU runs it", "on_this_cpu")):
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(found["conversions"][kinds].items()))
        lines.append(f"nodes that only convert, {title}: {counts or 'none'}")
    if found["smoothing_muls"]:
        lines.append(f"SmoothQuant added {found['smoothing_muls']} Mul nodes")
    if speed:
        lines.append(f"speed-up over FP32 on this CPU: {speed['measured']:.2f} measured, {speed['predicted_best']:.2f} "
                     f"at best ({speed['products_share_of_fp32_time']:.0%} of FP32's time is products, integer ones "
                     f"are {speed['integer_to_float_product_speed']:.1f} times as fast)")  # fmt: skip
    put(*lines, *_uncovered(found["products"]), *_noisy(found["products"]), *_clipped(found["clipped"]))
    put(*(f"advice: {line}" for line in found["advice"]))


def _uncovered(products: list[dict[str, Any]]) -> list[Table]:
    """Return a table of the products that are not in integers everywhere, those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for one in products:
        if one["reason"]:
            where = "TensorRT and this CPU" if not one["integers"] else "TensorRT" if one["on_this_cpu"] else "this CPU"
            reasons.setdefault(f"{where}: {one['reason']}", []).append(one["name"])
    if not reasons:
        return []
    table = Table(title="Not in integers", title_justify="left", box=SIMPLE)
    table.add_column("where, and why", overflow="fold")
    table.add_column("products", overflow="fold")
    for reason, names in reasons.items():
        table.add_row(reason, ", ".join(_folded(names)))
    return [table]


def _folded(names: list[str]) -> list[str]:
    """Return names with their layer's number as *, and how many they are."""
    found = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return [f"{name} ({count})" if count > 1 else name for name, count in found.items()]


def _noisy(products: list[dict[str, Any]]) -> list[Table]:
    """Return a table of the products with the largest error."""
    measured = sorted((one for one in products if one["snr_db"] is not None), key=lambda one: float(one["snr_db"]))
    if not measured:
        return []
    table = _ranking("Largest error at the output", "product", "signal to noise, dB", "share of the work")
    for one in measured[:5]:
        table.add_row(one["name"], f"{one['snr_db']:.1f}", f"{one['macs']:.1%}")
    return [table]


def _clipped(tensors: list[dict[str, Any]]) -> list[Table]:
    """Return a table of the tensors with values beyond their range."""
    if not tensors:
        return []
    title = f"Clipped ({len(tensors)} tensors)"
    table = _ranking(title, "tensor", "values beyond the range", "largest, to the range")
    for one in tensors[:10]:
        table.add_row(one["tensor"], f"{one['share']:.3%}", f"{one['reach']:.1f}")
    return [table]


def _ranking(title: str, what: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column(what)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def tuned(found: dict[str, Any]) -> None:
    """Print the products by their effect, the set that was found, and how to build it."""
    measured = [one for one in found["products"] if one["effect"] is not None]
    table = Table(title=f"{found['bundle']}: the noisiest products", title_justify="left", box=SIMPLE)
    for heading in ("product", "SNR, dB", "effect", "drop", "work", "keep"):
        table.add_column(heading, justify="left" if heading == "product" else "right", no_wrap=True)
    for one in sorted(measured, key=lambda one: -float(one["effect"])):
        kept = "yes" if one["name"] in found["keep"] else ""
        table.add_row(one["name"], f"{one['snr_db']:.1f}", f"{one['effect']:.4f}", f"{one['drop_points']:.2f}",
                      f"{one['macs']:.1%}", kept)  # fmt: skip
    expected = f"{found['expected_drop_points']:.2f} points expected, {found['max_drop_points']:g} allowed"
    verdict = (
        f"keep {len(found['keep'])} products, {found['keep_share_of_macs']:.1%} of the work, out of INT8: {expected}"
    )
    if not found["keep"]:
        verdict = f"nothing need be kept out of INT8: {expected}"
    if found["keep_share_of_macs"] > MUCH:
        verdict += ". That is much: calibrate with --calib-method auto first"
    if not found["enough"]:
        verdict = f"no set within the budget is enough; the nearest: {verdict}"
    files = found["files"]
    put(
        table,
        "SNR: at its own output. Effect on the logits, and points of drop to expect, when it alone is in INT8",
        verdict,
    )
    put(f"{found['evaluations']} graphs evaluated; table {files['record']}, plot {files['plot']}")
    put(f"next: toolchain build {files['recipe']} --max-drop {found['max_drop_points']:g}")


def demo(done: dict[str, Any]) -> None:
    """Print the demo's table and what to try next."""
    put(
        _results_table(done["results"]),
        f"bundle: {done['build']['bundle']}   report: {done['report']}",
        "next: toolchain build -m YOUR_CHECKPOINT --task sst2 --data DIR --precision int8",
    )


def doctor(found: dict[str, Any]) -> None:
    """Print what was found, and advice for what was not."""
    table = Table(title="This machine", title_justify="left", box=SIMPLE)
    for heading in ("what", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for entry in found["findings"]:
        table.add_row(entry["name"], MARKS[entry["state"]], entry["detail"], entry["advice"])
    put(table)
