"""Which tensors of a graph exceed the range of float16: the largest magnitude of each tensor is measured on some rows.

float16 holds numbers up to 65,504. A GPU stores larger ones as infinity, and an infinity soon becomes NaN: minus
infinity times 0 in GELU, infinity minus infinity in LayerNorm. Small values are not checked: float16 holds multiples of
6e-8, and if that is too coarse for a model, its logits in float16 show it.

A typed graph is one with float16 tensors. "In halves" means that a CPU computes it in float32 and rounds every float16
tensor to float16, as a GPU does (graph/halves.py).
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

# Safety factor, because other rows may have larger values: a tensor fits if its values on the measured rows are at most
# half of the largest float16 number.
MARGIN = 2.0

# Positions per batch, padding included, as in calibration: activations then stay in the processor's cache.
MAX_SLOTS = 512


@dataclass(frozen=True)
class HalfRange:
    """The largest magnitudes that a graph computed on some rows in float32, where nothing overflows.

    `largest` maps the name of each tensor that a node computes to its largest |x|; for a typed graph it has only the
    float16 tensors. `sums` maps the name of each INT8 GEMM with a scale per channel to the largest |sum| of its integer
    products, before the sum is scaled.
    """

    largest: dict[str, float]
    sums: dict[str, float]

    def beyond(self) -> list[LargeTensor]:
        """Return the tensors whose largest |x| exceeds the float16 maximum divided by MARGIN, largest first."""
        worst = sorted(self.largest.items(), key=lambda item: -item[1])
        return [{"tensor": name, "amax": amax} for name, amax in worst if amax > MAX / MARGIN]

    def large_sums(self) -> list[LargeTensor]:
        """Return the GEMMs whose integer sums exceed the float16 maximum, largest first.

        There is no margin, because large sums only cause a warning.
        """
        worst = sorted(self.sums.items(), key=lambda item: -item[1])
        return [{"tensor": name, "amax": amax} for name, amax in worst if amax > MAX]


def describe_sums(sums: list[LargeTensor]) -> str:
    """Return a warning about INT8 GEMMs whose integer sums exceed the largest float16 number.

    `sums` has one entry for each of these GEMMs, at least one, and the largest sum first.
    """
    return (
        f"integer sums of {counted(len(sums), 'GEMM')} exceed the range of float16 "
        f"(up to {sums[0]['amax']:,.0f} at {sums[0]['tensor']}). "
        "The graph for TensorRT-RTX avoids this. TensorRT overflows if it stores the sums as float16 before it scales "
        "them. Only a GPU can show whether it does: run `toolchain accept` or `toolchain verify --backend trt` there"
    )


def measure_range(model: ir.Model, tokens: Tokens) -> HalfRange:
    """Run every row through a graph in float32; return the largest magnitudes of its tensors and of INT8 GEMMs' sums.

    The graph may be a float32 graph or a typed one.

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
    """Run every row through a graph with float16 tensors; return tensor -> relative error of rounding it to float16.

    The graph runs in halves, and the tensors are in graph order. The error is the root mean square of the changes by
    rounding, divided by that of the values. It is about 3e-4 for values in the normal range of float16, 1 for values
    that are rounded to 0, and infinite or NaN for values that overflow.

    Raises:
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    probe = model.clone()
    in_halves(probe)
    tensors = report_rounding(probe)
    names = [name for pair in tensors.values() for name in pair]
    squares = np.zeros(len(names))
    with np.errstate(all="ignore"):  # infinity and NaN are among the results that are looked for
        for values in _run(probe, names, tokens):
            squares += np.square(values)
        sizes, changes = np.sqrt(squares).reshape(-1, 2).T
        errors = np.where(changes == 0, 0.0, changes / sizes)
    return dict(zip(tensors, errors.tolist(), strict=True))


def fault_in_halves(model: ir.Model, tokens: Tokens) -> str | None:
    """Describe the first tensor of a typed graph that is NaN or infinite in float16; return None if all are finite.

    The graph runs in halves. The logits may be finite nevertheless: a QuantizeLinear node turns infinity into 127 and
    NaN into some integer.

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
    """Return a description of the float16 tensor of a typed graph with the largest relative rounding error."""
    name, error = max(rounding_errors(model, tokens).items(), key=lambda item: item[1])
    return f"rounding to float16 changes the tensor {name} most, by {error:.2%}"


def _run(model: ir.Model, names: list[str], tokens: Tokens) -> Iterator[Array]:
    """Run the rows through a graph; yield for each batch the values of its scalar outputs `names`, float64 [names].

    Raises:
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    # With `literal`, INT8 GEMMs compute in float32, and their weights are dequantized only once, not for each batch.
    session = open_session(graph.message(model), literal=True)
    for rows in batches(tokens, max_slots=MAX_SLOTS):
        try:
            values = session.run(names, tokens.batch(rows))
        except Exception as error:
            raise cannot_run(b"", error) from error
        yield np.array(values, np.float64)
