"""Explains the speed of a language model's graph: its GEMMs, which are quantized, and the bytes that a step reads."""

from toolchain import graph
from toolchain.base.amounts import counted
from toolchain.bundle import Bundle
from toolchain.generate.build import graph_name
from toolchain.generate.opened import precision_of
from toolchain.generate.weight_only import BITS, coverage, step_bytes, taken
from toolchain.records.language_model import ExplainedWeights


def explain(bundle: Bundle, file: str | None) -> ExplainedWeights:
    """Return facts and advice about a graph of a bundle; with `file` None, about the graph in the bundle's precision.

    Raises:
        InputError: the bundle lacks the graph, or the graph is broken.
    """
    name = file or graph_name(bundle.manifest["precision"])
    model = graph.load(bundle.file(name))
    gemms = coverage(model)
    record: ExplainedWeights = {
        "artefact": str(bundle.path / name),
        "precision": precision_of(name),
        "share": taken(gemms),
        "step_bytes": step_bytes(model),
        "fp32_step_bytes": bundle.manifest["lm"]["step_bytes"][graph_name("fp32")],
        "products": gemms,
        "advice": [],
    }
    return {**record, "advice": _advise(record)}


def _advise(record: ExplainedWeights) -> list[str]:
    ratio = record["fp32_step_bytes"] / record["step_bytes"]
    if record["precision"] not in BITS:
        return [
            f"The weights are in {record['precision']}. Build with --precision int8 or int4: a decode step then reads "
            "fewer bytes of weights."
        ]
    advice = [
        f"A decode step reads {ratio:.2f} times fewer bytes of weights than in FP32, and cannot be faster by more than "
        "that. The pass over the prompt is limited by arithmetic, and is not faster."
    ]
    if left := [one["name"] for one in record["products"] if not one["bits"]]:
        advice.append(f"not quantized: {counted(len(left), 'GEMM')}: {', '.join(left[:5])}. --json lists the reasons.")
    return advice
