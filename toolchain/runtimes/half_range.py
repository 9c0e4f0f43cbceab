"""The range of float16: the largest magnitude of each tensor of a graph over some rows, and what does not fit.

float16 holds numbers up to 65,504. A GPU stores larger ones as infinity, and an infinity soon becomes NaN: minus
infinity times 0 in GELU, infinity minus infinity in LayerNorm. Small values are no reason to leave float16: it holds
6e-8 in steps of 6e-8, and where that is too coarse for a model, its logits in float16 (graph/halves.py) show it.
"""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from toolchain import graph
from toolchain.checkpoint.tokenize import Tokens, batches
from toolchain.graph.fp16 import MAX
from toolchain.graph.halves import report_largest, report_sums, to_float
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


def measure_range(model: ir.Model, tokens: Tokens) -> HalfRange:
    """Run every row through a graph, float or typed, in float32; return what its tensors reached.

    Raises:
        InputError: ONNX Runtime cannot run the graph on these rows.
    """
    probe = model.clone()
    typed = {str(value.name) for value in to_float(probe)}
    tensors = report_largest(probe)
    gemms = report_sums(probe)
    session = open_session(graph.message(probe))
    names = [*tensors, *gemms]
    found = np.zeros(len(names))
    for rows in batches(tokens, max_slots=MAX_SLOTS):
        try:
            values = session.run(names, tokens.batch(rows))
        except Exception as error:
            raise cannot_run(b"", error) from error
        found = np.fmax(found, np.nan_to_num(np.array(values, np.float64), nan=np.inf))
    reached = dict(zip(names, found.tolist(), strict=True))
    return HalfRange(
        {tensor: reached[name] for name, tensor in tensors.items() if not typed or tensor in typed},
        {gemm: reached[name] for name, gemm in gemms.items()},
    )
