"""The range of float16: the largest magnitude of each tensor of a graph over some rows, and what does not fit it.

float16 holds numbers up to 65,504. A GPU stores larger ones as infinity, and an infinity soon becomes NaN: minus
infinity times 0 in GELU, infinity minus infinity in LayerNorm. Small values are no reason to leave float16: it holds
6e-8 in steps of 6e-8, and where that is too coarse for a model, its logits in float16 (graph/halves.py) show it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.base.amounts import counted
from toolchain.base.tensors import Array
from toolchain.checkpoint.tokenize import Tokens, batches
from toolchain.graph.fp16 import MAX
from toolchain.graph.halves import in_halves, report_largest, report_rounding, report_sums, to_float
from toolchain.records.bundle import LargeTensor
from toolchain.runtimes.ort import cannot_run, open_session

# Rows that were not run may reach further: a tensor fits if these rows stay within half of float16's range.
MARGIN = 2.0

# Positions of a batch, as in calibration: activations then stay in the processor's cache.
MAX_SLOTS = 512


@dataclass(frozen=True)
class HalfRange:
    """What the rows reached, without the limits of float16.

    `largest`: tensor that a node computes -> largest |x|; of a typed graph, its float16 tensors only. `sums`: INT8 GEMM
    with a scale per channel -> largest |sum| of its integer products, before it is scaled.
    """

    largest: dict[str, float]
    sums: dict[str, float]

    def beyond(self) -> list[LargeTensor]:
        """Return the tensors that do not fit float16 with a margin of MARGIN, largest first."""
        worst = sorted(self.largest.items(), key=lambda item: -item[1])
        return [{"tensor": name, "amax": amax} for name, amax in worst if amax > MAX / MARGIN]

    def large_sums(self) -> list[LargeTensor]:
        """Return the GEMMs whose integer sums exceed float16, largest first. Sums get no margin: none is refused."""
        worst = sorted(self.sums.items(), key=lambda item: -item[1])
        return [{"tensor": name, "amax": amax} for name, amax in worst if amax > MAX]


def describe_sums(sums: list[LargeTensor]) -> str:
    """Return in words what is known about integer sums beyond float16, of a list that is not empty."""
    return (
        f"integer sums of {counted(len(sums), 'GEMM')} exceed float16 "
        f"(up to {sums[0]['amax']:,.0f} at {sums[0]['tensor']}). "
        "TensorRT-RTX gets them scaled; whether TensorRT stores them as float16 before it scales them, only a GPU "
        "tells: toolchain accept, toolchain verify --backend trt"
    )


def measure_range(model: ir.Model, tokens: Tokens) -> HalfRange:
    """Run every row through a graph, float or typed, in float32; return what its tensors reached.

    Raises:
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    probe = model.clone()
    typed = {str(value.name) for value in to_float(probe)}
    tensors = report_largest(probe)
    gemms = report_sums(probe)
    names = [*tensors, *gemms]
    found = np.zeros(len(names))
    for values in _run(probe, names, tokens):
        found = np.fmax(found, np.nan_to_num(values, nan=np.inf))
    reached = dict(zip(names, found.tolist(), strict=True))
    return HalfRange(
        {tensor: reached[name] for name, tensor in tensors.items() if not typed or tensor in typed},
        {gemm: reached[name] for name, gemm in gemms.items()},
    )


def rounding_errors(model: ir.Model, tokens: Tokens) -> dict[str, float]:
    """Run every row through a typed graph in halves; return float16 tensor -> error of its rounding, in graph order.

    The error is the root mean square of what the rounding changes, as a share of that of the values: about 3e-4 for
    numbers that float16 holds well, 1 for those that become 0, and infinite or NaN for those that do not fit.

    Raises:
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    probe = model.clone()
    in_halves(probe)
    tensors = report_rounding(probe)
    names = [name for pair in tensors.values() for name in pair]
    squares = np.zeros(len(names))
    with np.errstate(all="ignore"):  # a value that is not finite is what is looked for
        for values in _run(probe, names, tokens):
            squares += np.square(values)
        sizes, changes = np.sqrt(squares).reshape(-1, 2).T
        errors = np.where(changes == 0, 0.0, changes / sizes)
    return dict(zip(tensors, errors.tolist(), strict=True))


def fault_in_halves(model: ir.Model, tokens: Tokens) -> str | None:
    """Return the first float16 tensor of a typed graph that is not finite in halves, in words; None if all are.

    Logits do not show each of them: a Q node turns infinity into 127 and NaN into an integer.

    Raises:
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    name = next((name for name, error in rounding_errors(model, tokens).items() if not np.isfinite(error)), None)
    if name is None:
        return None
    node = next(node for node in model.graph if name in {value.name for value in node.outputs})
    reached = measure_range(model, tokens).largest[name]
    what = f"values up to {reached:.3g}, and float16 holds up to {MAX:,.0f}" if reached > MAX else "NaN in float16"
    return f"node {node.name} computes {what} (tensor {name})"


def coarsest_in_halves(model: ir.Model, tokens: Tokens) -> str:
    """Return the float16 tensor of a typed graph that its rounding changes most, in words."""
    name, error = max(rounding_errors(model, tokens).items(), key=lambda item: item[1])
    return f"rounding to float16 changes the tensor {name} most, by {error:.2%}"


def _run(model: ir.Model, names: list[str], tokens: Tokens) -> Iterator[Array]:
    """Yield the scalars `names` of a graph, float64, for each batch of the rows."""
    # INT8 GEMMs compute in float32, and their weights become floats once, not in each batch.
    session = open_session(graph.message(model), literal=True)
    for rows in batches(tokens, max_slots=MAX_SLOTS):
        try:
            values = session.run(names, tokens.batch(rows))
        except Exception as error:
            raise cannot_run(b"", error) from error
        yield np.array(values, np.float64)
