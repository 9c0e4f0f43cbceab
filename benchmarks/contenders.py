"""The contenders of `make bench`: the runtimes and quantizers that are compared on the same rows.

A contender is a context manager that yields a function from texts to a `Pass`. To add one, add a function here and its
line in CONTENDERS; the function raises LeftOut if a package that it needs is missing. All contenders except the two
pipelines run through this project's evaluator: they have the same tokens, the same batches (sorted by length, unless
the workload keeps the order of the file) and the same number of threads.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import quantized
from before import earlier
from numpy.typing import NDArray
from workload import Workload

from toolchain.base.processors import cpu_threads
from toolchain.base.tensors import Infer
from toolchain.data.rows import Text
from toolchain.errors import MachineError
from toolchain.evaluation.measure import BUDGETS
from toolchain.runtimes import open_runtime
from toolchain.runtimes.batched import run_texts
from toolchain.runtimes.environment import version_of
from toolchain.runtimes.openvino import run_request

BUDGET = BUDGETS[1]
PIPELINE_BATCH = 32
PIPELINE, OPTIMUM = "pipeline", "optimum ORTModel"
DYNAMIC = "ort dynamic INT8"


class LeftOut(Exception):  # noqa: N818  # it is not an error
    """Raised by a contender that cannot run on this machine or with these options. The message says why."""


@dataclass(frozen=True)
class Pass:
    """The result of a pass over all rows: float32 logits [rows, classes], and the seconds in the runtime, if known."""

    logits: NDArray[np.float32]
    runtime_s: float | None = None


Contender = Callable[[list[Text]], Pass]
Opened = AbstractContextManager[Contender]


def in_batches(workload: Workload, infer: Infer) -> Contender:
    """Return a contender that tokenises texts and runs them in batches with the open runtime `infer`.

    Batches are sorted by length, as in `toolchain eval`. If the workload keeps the order of the file, they have
    PIPELINE_BATCH rows in that order, as the pipeline's batches have.
    """
    # A window of rows is sorted by length, so a window of one batch keeps the order of the file.
    cut = {"window": PIPELINE_BATCH, "max_slots": sys.maxsize} if workload.file_order else {"max_slots": BUDGET}

    def once(texts: list[Text]) -> Pass:
        done = run_texts(infer, workload.resolved.encode, texts, **cut)
        return Pass(done.logits, done.runtime_s)

    return once


def in_file_order(workload: Workload, pipe: Any) -> Contender:
    """Return a contender that calls a transformers pipeline on the texts, PIPELINE_BATCH at a time in their order.

    A pipeline returns the score of the best label only, so the logits of the other labels are set to 0.
    """
    columns = {name: index for index, name in enumerate(workload.resolved.source.labels)}

    def once(texts: list[Text]) -> Pass:
        found = pipe([text[0] for text in texts], batch_size=PIPELINE_BATCH)
        scores = np.zeros((len(found), len(columns)), np.float32)
        for row, best in enumerate(found):
            scores[row, columns[best["label"]]] = best["score"]
        return Pass(scores)

    return once


@contextmanager
def pipeline(workload: Workload) -> Iterator[Contender]:
    """Yield the contender `transformers.pipeline` in FP32 on the CPU. It is the baseline."""
    import torch
    from transformers import pipeline as make

    torch.set_num_threads(cpu_threads())
    model = str(workload.resolved.source.folder)
    yield in_file_order(workload, make("text-classification", model=model, device="cpu", dtype="float32"))


@contextmanager
def ours_torch(workload: Workload, precision: str) -> Iterator[Contender]:
    """Yield the contender that runs the checkpoint in PyTorch on the CPU, in this precision."""
    with open_runtime("torch", workload.resolved.source, device="cpu", precision=precision) as infer:
        yield in_batches(workload, infer)


@contextmanager
def ort(workload: Workload, graph: Callable[[Workload], Path]) -> Iterator[Contender]:
    """Yield the contender that runs a graph in ONNX Runtime on the CPU. `graph(workload)` returns the graph's file."""
    with open_runtime("ort", graph(workload), device="cpu") as infer:
        yield in_batches(workload, infer)


def ours_ort(file: str) -> Callable[[Workload], Opened]:
    """Return an entry of CONTENDERS that runs this file of the workload's bundle in ONNX Runtime."""
    return partial(ort, graph=of_bundle(file))


@contextmanager
def before(workload: Workload) -> Iterator[Contender]:
    """Yield the contender that runs INT8 in ONNX Runtime with an earlier version of this project (`--before`)."""
    if workload.before is None:
        raise LeftOut("no earlier version of this project is given. Name a checkout with --before CHECKOUT.")
    if not (workload.before / "benchmarks/contenders.py").is_file():
        raise LeftOut(
            f"--before {workload.before}: no benchmarks/contenders.py there. Give a checkout of this project."
        )
    if workload.file_order:
        raise LeftOut("the earlier version always sorts by length. Run without --file-order to include it.")
    with earlier(workload.before, workload.resolved.recipe, workload.folder / "before") as ask:
        yield lambda texts: Pass(*ask(texts))


def ort_dynamic(workload: Workload) -> Path:
    """Return the file of our FP32 graph after dynamic quantization by ONNX Runtime's own tool."""
    return quantized.dynamic(workload.bundle / "model.onnx", workload.folder / "dynamic.onnx")


def ort_static(workload: Workload, method: str) -> Path:
    """Return the file of our FP32 graph after static quantization by ONNX Runtime's own tool.

    `method` is the range method, `minmax` or `percentile`. The calibration rows are those of our own INT8 graph.
    """
    tokens = workload.resolved.encode(workload.resolved.calibration_rows.texts)
    return quantized.static(workload.bundle / "model.onnx", workload.folder / f"{method}.onnx", tokens, method=method)


def of_transformers(workload: Workload) -> Path:
    """Return the file of a graph that transformers' own exporter made, with its fusions for CPUs and dynamic INT8."""
    batch = workload.resolved.encode(workload.resolved.calibration_rows.texts).batch(np.arange(2))
    return quantized.by_transformers(workload.resolved.source.folder, batch, workload.folder / "transformers")


@contextmanager
def torchao(workload: Workload) -> Iterator[Contender]:
    """Yield the contender that runs the checkpoint in PyTorch with torchao's dynamic INT8, compiled by inductor."""
    try:
        import torchao  # noqa: F401
    except ImportError:
        raise LeftOut("torchao is not installed. Install it: pip install torchao.") from None
    with open_runtime("torch", workload.resolved.source, device="cpu", precision="int8", compiled=True) as infer:
        yield in_batches(workload, infer)


@contextmanager
def openvino(workload: Workload, graph: Callable[[Workload], Path]) -> Iterator[Contender]:
    """Yield the contender that runs a graph in OpenVINO. `graph(workload)` returns the graph's file."""
    with ExitStack() as opened:
        try:
            infer = opened.enter_context(open_runtime("openvino", graph(workload)))
        except MachineError as error:
            raise LeftOut(str(error)) from None
        yield in_batches(workload, infer)


@contextmanager
def nncf(workload: Workload) -> Iterator[Contender]:
    """Yield the contender that quantizes our FP32 graph with NNCF (post-training) and runs the result in OpenVINO."""
    try:
        import nncf
        from openvino import Core
    except ImportError as error:
        raise LeftOut(f"{error.name} is not installed. Install both: pip install nncf openvino.") from None
    tokens = workload.resolved.encode(workload.resolved.calibration_rows.texts)
    rows = [tokens.batch(np.array([row])) for row in range(len(tokens))]
    core, dataset = Core(), nncf.Dataset(rows)
    made = nncf.quantize(
        core.read_model(workload.bundle / "model.onnx"),
        dataset,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(rows),
    )
    wanted = {"INFERENCE_NUM_THREADS": cpu_threads(), "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(made, "CPU", wanted).create_infer_request()
    yield in_batches(workload, lambda batch: run_request(request, workload.bundle / "model.onnx", batch))


def of_bundle(file: str) -> Callable[[Workload], Path]:
    """Return a function that takes a workload and returns the path of this file in the workload's bundle."""
    return lambda workload: workload.bundle / file


@contextmanager
def optimum(workload: Workload) -> Iterator[Contender]:
    """Yield the contender `transformers.pipeline` with a model that Optimum exports and runs in ONNX Runtime."""
    try:
        from optimum.onnxruntime import ORTModelForSequenceClassification
    except ImportError as error:
        found, here = version_of("optimum-onnx"), version_of("transformers")
        why = (
            f"optimum-onnx {found} cannot be imported together with transformers {here}: {error}"
            if found
            else (f"Optimum is not installed. optimum-onnx 0.1.0 needs transformers below 4.58; installed is {here}.")
        )
        raise LeftOut(why) from None
    import onnxruntime
    from transformers import pipeline as make

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    source = workload.resolved.source.folder
    model = ORTModelForSequenceClassification.from_pretrained(source, export=True, session_options=options)
    yield in_file_order(
        workload, make("text-classification", model=model, tokenizer=workload.resolved.tokenizer, device="cpu")
    )


TORCH, TORCH_BF16 = "torch FP32", "torch BF16"
OPENVINO_INT8, OPENVINO_QDQ = "openvino INT8", "openvino INT8 for TensorRT"
ORT, ORT_CPU, ORT_INT8 = "ort FP32", "ort FP32 cpu", "ort INT8"
BEFORE = "ort INT8 of --before"
OURS = (TORCH, TORCH_BF16, ORT_CPU, ORT_INT8, OPENVINO_INT8, OPENVINO_QDQ)
EXPORTER, NNCF, TORCHAO = "transformers' exporter, dynamic INT8", "openvino NNCF INT8", "torchao INT8, compiled"
INT8_OF_OTHERS = (DYNAMIC, EXPORTER, NNCF, TORCHAO)
# The contenders of others come first, then ours.
CONTENDERS: dict[str, Callable[[Workload], Opened]] = {
    PIPELINE: pipeline,
    OPTIMUM: optimum,
    DYNAMIC: partial(ort, graph=ort_dynamic),
    "ort static INT8 minmax": partial(ort, graph=partial(ort_static, method="minmax")),
    "ort static INT8 percentile": partial(ort, graph=partial(ort_static, method="percentile")),
    EXPORTER: partial(ort, graph=of_transformers),
    NNCF: nncf,
    TORCHAO: torchao,
    BEFORE: before,
    "openvino FP32": partial(openvino, graph=of_bundle("model.onnx")),
    TORCH: partial(ours_torch, precision="fp32"),
    TORCH_BF16: partial(ours_torch, precision="bf16"),
    ORT: ours_ort("model.onnx"),
    ORT_CPU: ours_ort("model.fp32.cpu.onnx"),
    ORT_INT8: ours_ort("model.int8.cpu.onnx"),
    OPENVINO_INT8: partial(openvino, graph=of_bundle("model.int8.cpu.onnx")),
    OPENVINO_QDQ: partial(openvino, graph=of_bundle("model.int8.onnx")),
}
