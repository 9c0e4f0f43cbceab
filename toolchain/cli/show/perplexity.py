"""Show the perplexity of a language model's graph, its weights, and its TensorRT-RTX kernels on the terminal."""

from toolchain.base.amounts import counted, figure, megabytes
from toolchain.cli.show import folded, put, titled
from toolchain.records.language_model import ExplainedPasses, ExplainedWeights, PerplexityResult


def perplexity(one: PerplexityResult) -> None:
    """Print the perplexity with its interval, the ratio to the reference's perplexity, and the file of the result."""
    put(
        f"{one['artefact']['file']} of {one['model']} on {one['backend']}, {one['device']}: "
        f"{one['documents']:,} documents, {one['tokens_scored']:,} tokens scored",
        f"perplexity {one['perplexity']:.3f}{_interval(one['perplexity_ci95'], '.3f')}",
    )
    if rise := one["reference"]:
        put(
            f"reference {rise['artefact']}: {rise['perplexity']:.3f}; ratio to it {rise['ratio']:.4f}"
            f"{_interval(rise['ratio_ci95'], '.4f')}: {rise['verdict']}"
        )
    put(f"saved in {one['file']}")


def weights(record: ExplainedWeights) -> None:
    """Print how many GEMMs are quantized, the bytes of weights that a decoding step reads, and advice."""
    gemms = record["products"]
    put(
        f"{record['artefact']}: {sum(1 for one in gemms if one['bits'])} of {len(gemms)} GEMMs with weights are "
        f"quantized, with {record['share']:.1%} of all their weights",
        f"a step reads {megabytes(record['step_bytes'])} MB of weights, "
        f"in FP32 {megabytes(record['fp32_step_bytes'])} MB",
        *folded([f"not quantized: {one['name']}: {one['reason']}" for one in gemms if not one["bits"]]),
        *record["advice"],
    )


def passes(record: ExplainedPasses) -> None:
    """Print a row for each pass that was compiled: the prompt, or one decoding step, in one precision.

    Then print why the compiler refused passes, and what the bounds mean for a step.
    """
    table = titled(
        f"{record['target']}: {counted(record['batch'], 'row')}, {counted(record['length'], 'token')}, "
        f"{record['compiler']}\n"
        f"bounds from the data sheet of {record['gpu']}, not measurements",
        narrow=True,
    )
    for heading in ("pass", "weights", "kernels", "GEMMs", "attention", "MB", "µs"):
        table.add_column(heading, justify="left" if heading in ("pass", "weights", "GEMMs") else "right")
    for one in record["passes"]:
        gemms = ", ".join(f"{count} {types}" for types, count in one["gemms"].items())
        moved, least_us = one["bytes"], one["us"]
        figures = ("", "") if moved is None or least_us is None else (megabytes(moved), figure(least_us))
        counts = ("", "refused", "") if one["refused"] else (str(one["kernels"]), gemms, str(one["fused_attention"]))
        table.add_row(one["phase"], one["precision"], *counts, *figures)
    put(table, *dict.fromkeys(one["refused"] for one in record["passes"] if one["refused"]), record["answer"])


def _interval(ends: list[float] | None, form: str) -> str:
    return f" (95 % interval {ends[0]:{form}} to {ends[1]:{form}})" if ends else " (one document: no interval)"
