"""The graphs that TensorRT-RTX must compile as asked: models and heads, in FP16 and INT8.

The kernels depend on the shapes of a model and not on its weights, so calibration ranges are constant here, and so are
the weights of models of base size random. DistilBERT-base has all its layers, because its time and its bytes have
limits, and a vocabulary of 4096: 32 rows of 128 tokens read no more rows of a larger one. BERT-base and RoBERTa-base
have two layers, the last and one that computes all tokens, and a small vocabulary.

    python -m tests.engine.matrix    # writes the bytes that the kernels move, which test_matrix.py compares
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from tests import tiny
from toolchain import graph
from toolchain.bundle.quantized import quantized_graph
from toolchain.checkpoint.export import export
from toolchain.checkpoint.model import find_model
from toolchain.engine.cross import compile_kernels
from toolchain.engine.judge import Wanted, wanted
from toolchain.engine.kernels import Kernel
from toolchain.graph.first_token import first_token
from toolchain.graph.fp16 import to_half
from toolchain.graph.gemms import calibrated_tensors
from toolchain.int8.calibrate import Calibration, write_calibration
from toolchain.int8.quantize import TENSORRT
from toolchain.tensors import Range

BATCH, LENGTH = 32, 128
PRECISIONS, TARGETS = ("fp16", "int8"), (75, 86, 89, 120)

BYTES = Path(__file__).parent / "kernels/bytes.json"
SHARED = Path(__file__).parents[3] / "shared/models"

Edit = Callable[[ir.Model], object]


@dataclass(frozen=True)
class Case:
    """A model: a checkpoint by its path or name, or the arguments of tiny.make_checkpoint."""

    name: str
    checkpoint: str | None = None
    type: str = "distilbert"
    labels: int = 2
    config: dict[str, Any] = field(default_factory=dict)
    targets: tuple[int, ...] = TARGETS

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


BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 2}
CASES = (
    Case("demo", "demo"),
    Case("sst2", str(SHARED / "distilbert-l6-h384-sst2")),
    # One class less than sst2: one target is enough.
    Case("stsb-regression", str(SHARED / "distilbert-l6-h384-stsb"), targets=(75,)),
    Case("distilbert-base", config={"dim": 768, "hidden_dim": 3072, "n_heads": 12, "n_layers": 6, "vocab_size": 4096}),
    Case("bert-base-pairs", type="bert", config=BASE),
    Case("roberta-base-regression", type="roberta", labels=1, config=BASE),
)


def nothing(model: ir.Model) -> None:
    """Leave a graph as it is."""


def typed(
    float_graph: Path,
    precision: str,
    *,
    before: Edit = nothing,
    after: Edit = nothing,
    residual: str | None = None,
) -> tuple[ir.Model, Wanted]:
    """Return a graph in FP16 or INT8, as a build makes it, and what it asks.

    Faults are planted in the float graph before it is quantized, or after. `residual` is an option of a build.
    """
    model = graph.load(float_graph)
    before(model)
    if precision == "fp16":
        first_token(model)
        recorded = None
    else:
        ranges = {name: Range(amax=4.0, low=-4.0, high=4.0) for name in calibrated_tensors(model)}
        with tempfile.TemporaryDirectory() as folder:
            graph.save(model, Path(folder) / "model.onnx")
            write_calibration(Path(folder), Calibration(ranges, {}, {}))
            model, recorded = quantized_graph(Path(folder), TENSORRT, keep=None, residual=residual)
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
    """Write the bytes of each case, precision and target."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            float_graph = case.export(Path(folder))
            found[case.name] = {
                precision: {str(sm): moved(compiled(typed(float_graph, precision)[0], sm)) for sm in case.targets}
                for precision in PRECISIONS
            }
    BYTES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
