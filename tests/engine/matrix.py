"""The graphs that TensorRT-RTX must compile as asked: models and heads, in FP16 and INT8.

The kernels depend on the shapes of a model and not on its weights, so calibration ranges are constant here, and so are
the weights of models of base size random. DistilBERT-base has all its layers, because its time and its bytes have
limits, and a vocabulary of 4096: 32 rows of 128 tokens read no more rows of a larger one. BERT-base and RoBERTa-base
have two layers, the last and one that computes all tokens, and a small vocabulary. For later GPUs than a T4 the other
models are cut to two such layers too: for a T4, each layer but the last is judged to be compiled as the first is.

    python -m tests.engine.matrix    # writes the bytes that the kernels move, which test_matrix.py compares
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from tests import tiny
from toolchain import graph
from toolchain.base.tensors import Range
from toolchain.bundle.quantized import quantized_graph
from toolchain.checkpoint.export import export
from toolchain.checkpoint.model import find_model
from toolchain.engine.cross import compile_kernels
from toolchain.engine.judge import Wanted, wanted
from toolchain.engine.kernels import Kernel
from toolchain.graph import constant, nodes
from toolchain.graph.common_scale import UNSCALED, common_scale
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.graph.gemms import calibrated_tensors, linear_layers
from toolchain.int8.calibrate import Calibration, write_calibration
from toolchain.int8.quantize import TENSORRT
from toolchain.records.bundle import QuantizedGemms

BATCH, LENGTH = 32, 128
TARGETS = (75, 86, 89, 120)

BYTES = Path(__file__).parent / "kernels/bytes.json"
SHARED = Path(__file__).parents[3] / "shared/models"

Edit = Callable[[ir.Model], object]


def nothing(model: ir.Model) -> None:
    """Leave a graph as it is."""


def one_output(model: ir.Model) -> None:
    """Give a classifier of two classes the head of a regression."""
    head = list(nodes(model, "Gemm"))[-1]
    for value in head.inputs[1:]:
        array = np.asarray(constant(value))
        assert array.shape[0] == 2
        value.const_value, value.shape = ir.tensor(array[:1], name=value.name), ir.Shape(array[:1].shape)
    head.outputs[0].shape = ir.Shape(["batch", 1])


def shortened(model: ir.Model) -> None:
    """Leave out the layers between the first and the last. Each layer has two LayerNorms."""
    norms = list(nodes(model, "LayerNormalization"))
    norms[-3].outputs[0].replace_all_uses_with(norms[2].outputs[0])
    graph.tidy(model)


@dataclass(frozen=True)
class Case:
    """A model: a checkpoint by its path or name, or the arguments of tiny.make_checkpoint.

    `edit` changes the graph of the checkpoint into that of another one. `beyond`: whether its graphs are also compiled
    with values beyond float16 in the first feed-forward part, whose GEMMs are then in float32.
    """

    name: str
    checkpoint: str | None = None
    type: str = "distilbert"
    labels: int = 2
    config: dict[str, Any] = field(default_factory=dict)
    targets: tuple[int, ...] = TARGETS
    edit: Edit = nothing
    beyond: bool = False

    @property
    def exists(self) -> bool:
        """Whether its checkpoint is at hand."""
        return self.checkpoint is None or self.checkpoint == "demo" or Path(self.checkpoint).exists()

    def export(self, folder: Path) -> Path:
        """Return the FP32 graph, written to `folder`."""
        checkpoint = self.checkpoint or str(
            tiny.make_checkpoint(folder / self.name, self.type, labels=self.labels, **self.config)
        )
        export(find_model(checkpoint), folder / f"{self.name}.onnx")
        return folder / f"{self.name}.onnx"

    def by_target(self, float_graph: Path) -> Iterator[tuple[int, dict[str, tuple[ir.Model, Wanted]]]]:
        """Yield each GPU with the graphs to compile for it; those of all GPUs after a T4 are the same."""
        made: dict[bool, dict[str, tuple[ir.Model, Wanted]]] = {}
        for sm in self.targets:
            later = sm != TARGETS[0]
            if later not in made:
                made = {later: self.graphs(float_graph, sm)}
            yield sm, made[later]

    def graphs(self, float_graph: Path, sm: int) -> dict[str, tuple[ir.Model, Wanted]]:
        """Return the graphs to compile for a GPU, by their names, each with what it asks."""

        def edit(model: ir.Model) -> None:
            self.edit(model)
            if sm != TARGETS[0]:
                shortened(model)

        made = emitted(float_graph, before=edit)
        if self.beyond and sm != TARGETS[0]:  # a T4 has no GEMM in float32
            large = emitted(float_graph, before=edit, beyond=True)
            made |= {f"{name}-beyond": one for name, one in large.items()}
        return made


BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 2}
CASES = (
    Case("demo", "demo"),
    Case("sst2", str(SHARED / "distilbert-l6-h384-sst2")),
    # One class less than sst2: one target is enough.
    Case("stsb-regression", str(SHARED / "distilbert-l6-h384-sst2"), edit=one_output, targets=(75,)),
    Case("distilbert-base", config={"dim": 768, "hidden_dim": 3072, "n_heads": 12, "n_layers": 6, "vocab_size": 4096}),
    Case("bert-base-pairs", type="bert", config=BASE),
    Case("roberta-base-regression", type="roberta", labels=1, config=BASE, beyond=True),
)


def emitted(
    float_graph: Path, *, before: Edit = nothing, beyond: bool = False, residual: str | None = None
) -> dict[str, tuple[ir.Model, Wanted]]:
    """Return model.fp16.onnx, model.int8.onnx and model.int8.rtx.onnx as `fp16`, `int8` and `rtx`, with what each asks.

    `before` changes the float graph. With `beyond`, its first feed-forward part computes values beyond float16.
    `residual` is an option of a build.
    """
    model = graph.load(float_graph)
    before(model)
    large = first_feed_forward(model) if beyond else []
    integer, recorded = quantized(model, residual)
    first_token(model)
    rtx = integer.clone()
    common_scale(rtx)
    made = {"fp16": (model, None), "int8": (integer, recorded), "rtx": (rtx, recorded)}
    for one, _ in made.values():
        to_half(one, large)
    return {name: (one, wanted(one, asked, large)) for name, (one, asked) in made.items()}


def quantized(model: ir.Model, residual: str | None = None) -> tuple[ir.Model, QuantizedGemms]:
    """Return the Q/DQ graph of a float graph, before it is typed, and the record of what was quantized."""
    ranges = {name: Range(amax=4.0, low=-4.0, high=4.0) for name in calibrated_tensors(model)}
    with tempfile.TemporaryDirectory() as folder:
        graph.save(model, Path(folder) / "model.onnx")
        write_calibration(Path(folder), Calibration(ranges, {}, {}))
        return quantized_graph(Path(folder), TENSORRT, keep=None, residual=residual)


def first_feed_forward(model: ir.Model) -> list[str]:
    """Return the names of the tensors that the first feed-forward part computes, and of its raw sums."""
    gemms = linear_layers(model)[4:6]  # behind query, key, value and output
    found = [node.outputs[0] for node in gemms]
    found += [use.node.outputs[0] for value in found for use in value.uses()]
    return [name for value in found for name in (str(value.name), f"{value.name}{UNSCALED}")]


def typed(
    float_graph: Path, precision: str, *, before: Edit = nothing, after: Edit = nothing
) -> tuple[ir.Model, Wanted]:
    """Return a graph in FP16 or INT8 and what it asks, with faults planted before it is quantized, or after."""
    model = graph.load(float_graph)
    before(model)
    recorded = None
    if precision == "fp16":
        first_token(model)
    else:
        model, recorded = quantized(model)
    after(model)
    to_half(model)
    return model, wanted(model, recorded)


def compiled(model: ir.Model, sm: int) -> list[Kernel]:
    """Return the kernels for 32 rows of 128 tokens."""
    return compile_kernels(model, sm, batch=BATCH, length=LENGTH)


def moved(kernels: list[Kernel]) -> int:
    """Return the bytes that the kernels move."""
    return sum(one.bytes or 0 for one in kernels)


def record() -> None:
    """Write the bytes of each case, graph and target."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            float_graph, sizes = case.export(Path(folder)), found.setdefault(case.name, {})
            for sm, graphs in case.by_target(float_graph):
                for name, (model, _) in graphs.items():
                    sizes.setdefault(name, {})[str(sm)] = moved(compiled(model, sm))
    BYTES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
