"""Show the record of a build on the terminal."""

from toolchain.base.amounts import counted
from toolchain.bundle import typed_view
from toolchain.cli.show import folded, put
from toolchain.cli.show.compare import compared
from toolchain.evaluation.deployment import sentence
from toolchain.records.bundle import BuildRecord, CalibrateRecord, Float16Record, QuantizeRecord
from toolchain.records.plan import PlanRecord
from toolchain.runtimes.half_range import describe_sums


def built(record: BuildRecord) -> None:
    """Print what a build made or, for a dry run, would make."""
    if "would_do" in record:
        put(f"would make {record['bundle']}: {', '.join(record['would_do'])}")
        return
    if record["up_to_date"]:
        put(f"{record['bundle']} is up to date: nothing done ({', '.join(record['skipped'])}).")
    else:
        _put_steps(record)
    if "gate" in record:
        compared({"comparisons": record["gate"]})
    if "deploy" in record:
        put("", sentence(record["deploy"]), f"next: {record['deploy']['next']}")
    elif not record["up_to_date"]:
        put(f"next: {record['next']}")


def _put_steps(record: BuildRecord) -> None:
    unchanged = f"; {', '.join(record['skipped'])} unchanged" if record["skipped"] else ""
    put(f"{record['bundle']}: {', '.join(record['done'])} done{unchanged}")
    if "export" in record:
        parity = record["export"]["parity"]
        put(f"  the logits of model.onnx differ from PyTorch's by at most {parity['max_abs_logit_difference']:.1e}")
    if "half" in record:
        put(*_beyond("model.fp16.onnx", record["half"]))
    if "cuda" in record:
        put(*_beyond("model.fp16.cuda.onnx", record["cuda"]))
    if "calibrate" in record:
        put(*_chosen_method(record["calibrate"]))
    if "quantize" in record:
        put(*_quantized(record["quantize"]))
    for engine in record.get("engines", []):
        put(*_engine(engine))


def _beyond(file: str, record: Float16Record) -> list[str]:
    """Return a line about the tensors that stay in float32, or nothing if all fit into float16."""
    beyond = record.get("beyond_float16")
    if not beyond:
        return []
    largest = f"{beyond[0]['tensor']} reaches {beyond[0]['amax']:.2g}"
    return [
        f"  {file}: {counted(len(beyond), 'tensor')} in float32, whose values may exceed float16's range ({largest})"
    ]


def _quantized(record: QuantizeRecord) -> list[str]:
    """Return lines about the GEMMs of a quantized graph.

    They say which GEMMs are excluded from quantization, and how many run in integers on this CPU.
    """
    typed, view = typed_view(record)
    lines = [f"  excluded from quantization: {', '.join(folded(view['kept']))}"] if view["kept"] else []
    lines += _beyond(typed, view)
    if sums := view.get("large_sums"):
        lines.append(f"  warning: {typed}: {describe_sums(sums)}")
    for file, found in record["products_on_cpu"].items():
        total = found["integer"] + found["float"]
        purpose = "" if ".cpu." in file else " (this graph is made for GPUs)"
        lines.append(f"  {file}: {found['integer']} of {total} GEMMs run in integers on this CPU{purpose}")
    return lines


def _engine(record: PlanRecord) -> list[str]:
    """Return lines about an engine: its size and build time, and the counts of its layers."""
    layers = record["layers"]
    gpu = record["gpu"] or f"compute capability {record['sm'] // 10}.{record['sm'] % 10}"
    lines = [
        f"  {record['file']}: {record['precision']} for {gpu}, {record['plan_bytes'] / 1e6:.0f} MB, "
        f"built in {record['build_s']:.0f} s"
    ]
    if layers["products"] is not None:
        fp8 = record["precision"] == "fp8"
        found, kind = (layers.get("fp8_products", 0), "FP8") if fp8 else (layers["int8_products"], "INT8")
        lines.append(
            f"  {layers['layers']} layers: {found} of {layers['products']} GEMMs in {kind}, "
            f"{layers['fused_attention']} fused attentions, {layers['reformats']} reformat layers"
        )
    return lines + [f"  the engine differs from the graph: {line}" for line in folded(record.get("not_as_asked", []))]


def _chosen_method(record: CalibrateRecord) -> list[str]:
    """Return the method that `--calib-method auto` chose and its distance from FP32, or nothing for other methods."""
    if "trials" not in record:
        return []
    best, *others = record["trials"]
    smoothing = "no smoothing" if best["smooth"] is None else f"smoothing {best['smooth']:g}"
    divergence = f"KL {best['kl']:.2g}, " if best["kl"] is not None else ""
    return [
        f"  calibration: {best['method']} with {smoothing} is the closest to FP32 of {len(others) + 1} methods on "
        f"{record['chosen_on']['rows']} train rows ({divergence}RMS difference of the logits {best['rms']:.2g})"
    ]
