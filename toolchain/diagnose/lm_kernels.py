"""Compile a language model's graph with TensorRT-RTX, for the prompt and for a decoding step; no GPU is needed.

No backend of `generate` runs such a plan. The record only says whether the compiler accepts the graph, and how fast a
pass can be at most.
"""

from collections import Counter
from datetime import UTC, datetime

import onnx_ir as ir

from toolchain import graph
from toolchain.base.amounts import megabytes
from toolchain.bundle import Bundle
from toolchain.engine.cross import compile_static
from toolchain.engine.kernels import MULTIPLYING, Kernel, parse_kernels
from toolchain.engine.releases import RELEASES, import_release
from toolchain.engine.targets import parse_targets
from toolchain.errors import InputError, UsageError
from toolchain.generate.build import graph_name
from toolchain.generate.decode_ort import PAST
from toolchain.generate.typed import to_typed
from toolchain.generate.weight_only import BITS
from toolchain.profile.roofline.gpus import Gpu, find_target
from toolchain.profile.roofline.kernels import bounded
from toolchain.recipe.options import RecipeValues
from toolchain.records.language_model import CompiledPass, ExplainedPasses

# Default shape for which the kernels are compiled: rows, and tokens of the prompt or of the cache.
BATCH, LENGTH = 1, 128


def explain_passes(bundle: Bundle, changes: RecipeValues) -> ExplainedPasses:
    """Compile the graph of a language model for `target`, in float16 and with the weights of the bundle's precision.

    Return the record of the compiled passes, with lower bounds for their time.

    Raises:
        UsageError: the target is unknown, has no data sheet or names several GPUs, or a shape does not fit.
        MachineError: TensorRT-RTX is not installed.
        InputError: the bundle cannot be read.
    """
    target = changes["target"]
    trt = import_release("trt-rtx")
    sm, *others = parse_targets(trt, target)
    if others:
        raise UsageError(f"--target {target}: this names several GPUs. Give one.")
    gpu = find_target(target, sm)
    batch, length = (
        _number(name, changes.get(name), value) for name, value in (("batch_size", BATCH), ("seq_len", LENGTH))
    )
    if (most := bundle.manifest["lm"]["positions"]) and length >= most:
        raise UsageError(f"--seq-len {length}: the model has {most} positions. Give {most - 1} or less.")
    precision = bundle.manifest["precision"]
    passes = [
        _compiled(bundle, kind, new, before, batch=batch, gpu=gpu, sm=sm)
        for kind in ("fp16", *([precision] if precision in BITS else []))
        for new, before in ((length, 0), (1, length))
    ]
    return {
        "bundle": str(bundle.path),
        "target": target,
        "sm": sm,
        "gpu": gpu.name,
        "source": gpu.source,
        "compiler": f"{RELEASES['trt-rtx'].name} {trt.__version__}",
        "batch": batch,
        "length": length,
        "passes": passes,
        "answer": _answer(passes, batch),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _number(name: str, text: str | None, default: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--{name.replace('_', '-')} {text}: kernels are compiled for one shape. Give one number.")
    return int(text)


def _compiled(bundle: Bundle, kind: str, new: int, before: int, *, batch: int, gpu: Gpu, sm: int) -> CompiledPass:
    """Compile a pass over `new` tokens per row, with `before` tokens in the cache; return its kernels and bounds.

    `kind` is the precision of the weights: fp16, int8 or int4.
    """
    model = graph.load(bundle.file(graph_name("fp32")))
    to_typed(model, BITS.get(kind))
    found: CompiledPass = {
        "phase": "step" if before else "prompt",
        "precision": kind,
        "refused": None,
        "kernels": 0,
        "gemms": {},
        "fused_attention": 0,
        "bytes": None,
        "us": None,
    }
    try:
        built = compile_static(graph.serialised(model), sm, _shapes(model, batch, new, before), where=kind)
    except InputError as error:
        return {**found, "refused": str(error)}
    kernels = parse_kernels(built.messages.layer_lists[0])
    bounds = [bounded(one, gpu.ceiling) for one in kernels]
    gemms = Counter(" x ".join(operand.datatype for operand in one.operands) for one in kernels if _is_gemm(one))
    return {
        **found,
        "kernels": len(kernels),
        "gemms": dict(gemms.most_common()),
        "fused_attention": sum(one.kind == "attention" for one in kernels),
        "bytes": sum(one["bytes"] or 0 for one in bounds),
        "us": sum(one["us"] for one in bounds),
    }


def _is_gemm(kernel: Kernel) -> bool:
    return kernel.kind in MULTIPLYING and kernel.kind != "attention"


def _shapes(model: ir.Model, batch: int, new: int, before: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each input of the graph, for logits of the last position only."""
    shapes: dict[str, tuple[int, ...]] = {
        "input_ids": (batch, new),
        "position_ids": (batch, new),
        "attention_mask": (batch, before + new),
        "logits_to_keep": (1,),
    }
    for value in model.graph.inputs:
        if value.shape is not None and str(value.name).startswith(PAST):
            shapes[str(value.name)] = (batch, int(str(value.shape[1])), before, int(str(value.shape[3])))
    return shapes


def _answer(passes: list[CompiledPass], batch: int) -> str:
    """Return sentences about the compiled passes: the bound for tokens/s, and how quantized weights compare."""
    said = []
    for one in passes:
        if one["phase"] == "step" and one["us"] and one["bytes"] is not None:
            said.append(
                f"In {one['precision']}, a decoding step moves {megabytes(one['bytes'])} MB, so at most "
                f"{batch * 1e6 / one['us']:,.0f} tokens/s are possible."
            )
    half, *rest = [one for one in passes if one["phase"] == "step"]
    for one in rest:
        if one["refused"]:
            said.append(f"The compiler refuses {one['precision']} weights for this GPU.")
        elif one["bytes"] and half["bytes"] and one["bytes"] > half["bytes"]:
            said.append(
                f"A step with {one['precision']} weights moves more bytes than with float16: separate kernels "
                "dequantize the weights to float16 in each pass."
            )
    return " ".join(
        [*said, "These are bounds: `generate` runs no such plan, and values were not checked for float16's range."]
    )
