"""The graphs that TensorRT-RTX must compile as asked: models and heads, in FP16 and INT8.

The kernels depend on the shapes of a model and not on its weights, so weights and calibration ranges are random here.
Vocabularies are small, and models of base size have two layers: one that computes all tokens and the last.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from tests import tiny
from toolchain import graph
from toolchain.checkpoint.export import export
from toolchain.checkpoint.model import find_model
from toolchain.engine.cross import compile_kernels
from toolchain.engine.judge import Wanted, wanted
from toolchain.engine.kernels import Kernel
from toolchain.graph.fp16 import to_half
from toolchain.graph.gemms import calibrated_tensors
from toolchain.int8.quantize import TENSORRT, quantize
from toolchain.tensors import Range

BATCH, LENGTH = 32, 128

Edit = Callable[[ir.Model], object]


@dataclass(frozen=True)
class Case:
    """A model: a checkpoint by its path or name, or the arguments of tiny.make_checkpoint."""

    name: str
    checkpoint: str | None = None
    type: str = "distilbert"
    labels: int = 2
    config: dict[str, Any] = field(default_factory=dict)

    def export(self, folder: Path) -> Path:
        """Return the FP32 graph, written to `folder`."""
        checkpoint = self.checkpoint or str(
            tiny.make_checkpoint(folder / self.name, self.type, labels=self.labels, **self.config)
        )
        export(find_model(checkpoint), folder / f"{self.name}.onnx")
        return folder / f"{self.name}.onnx"


def nothing(model: ir.Model) -> None:
    """Leave a graph as it is."""


def typed(
    float_graph: Path, precision: str, *, before: Edit = nothing, after: Edit = nothing
) -> tuple[ir.Model, Wanted]:
    """Return a graph in FP16 or INT8 and what it asks; faults are planted before and after it is quantized."""
    model = graph.load(float_graph)
    before(model)
    recorded = None
    if precision == "int8":
        ranges = {name: Range(amax=4.0, low=-4.0, high=4.0) for name in calibrated_tensors(model)}
        recorded = quantize(model, ranges, TENSORRT)
    after(model)
    to_half(model)
    return model, wanted(model, recorded)


def compiled(model: ir.Model, sm: int) -> list[Kernel]:
    """Return the kernels for 32 rows of 128 tokens."""
    return compile_kernels(model, sm, batch=BATCH, length=LENGTH)
