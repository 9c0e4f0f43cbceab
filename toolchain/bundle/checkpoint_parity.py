"""Parity of a bundle's graphs with the checkpoint: their logits are compared with PyTorch's on the same rows.

PyTorch runs each batch once, and all graphs of a build are compared with the logits that it returned.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.base.tensors import Batch, Infer, Logits
from toolchain.data.probes import probe_texts
from toolchain.data.rows import Text
from toolchain.data.tables import MissingSplitError
from toolchain.errors import InputError, ToolchainError
from toolchain.runtimes import open_runtime, parity

if TYPE_CHECKING:
    import onnx_ir as ir

    from toolchain.bundle.resolved_recipe import ResolvedRecipe

# Number of rows for the comparison with PyTorch: enough to have various lengths and labels, and to take seconds only.
PARITY_ROWS = 32


def parity_texts(resolved: ResolvedRecipe) -> list[Text]:
    """Return the first PARITY_ROWS texts of the train split, or built-in sentences if this machine lacks the split."""
    if resolved.has_local_rows:
        with contextlib.suppress(MissingSplitError):  # the data may lack a train split
            return resolved.rows("train").texts[:PARITY_ROWS]
    return probe_texts(resolved.head.texts_per_row)


def compare_with_checkpoint(
    resolved: ResolvedRecipe, model: Path | ir.Model, *more: Text, halves: bool = False
) -> parity.Parity:
    """Compare a graph in ONNX Runtime with the checkpoint in PyTorch on `parity_texts` and the texts `more`.

    Both run on the CPU, where ONNX Runtime computes float16 nodes in float32. With `halves`, the results of these nodes
    are rounded to float16, as on a GPU.

    Raises:
        InputError: the checkpoint or the graph cannot run the rows.
        GateError: see `parity.compare`.
    """
    from toolchain import graph

    tokens = resolved.encode([*parity_texts(resolved), *more])
    opened = model if isinstance(model, Path) else graph.message(model)
    try:
        with (
            _checkpoint(resolved) as reference,
            open_runtime("ort", opened, device="cpu", halves=halves) as candidate,
        ):
            decide, longest = resolved.head.decide, resolved.max_length
            return parity.compare(reference, candidate, tokens, decide=decide, longest=longest)
    except ToolchainError:
        raise
    except Exception as error:  # the class depends on the model and the operator
        raise InputError(
            f"{resolved.source.name}: the model or its graph failed on rows of {tokens.lengths.min()} to "
            f"{tokens.lengths.max()} tokens ({type(error).__name__}; run again with -v for the traceback). "
            "Choose another --max-length or model."
        ) from error


@contextlib.contextmanager
def _checkpoint(resolved: ResolvedRecipe) -> Iterator[Infer]:
    """Yield a function that returns PyTorch's logits of a batch, computed on the CPU.

    If an earlier graph was compared on the same batch, its logits are reused. The checkpoint is loaded only when the
    first new batch comes.
    """
    with contextlib.ExitStack() as stack:
        opened: list[Infer] = []

        def infer(batch: Batch) -> Logits:
            key = tuple((name, array.shape, array.tobytes()) for name, array in batch.items())
            if key not in resolved.checkpoint_logits:
                if not opened:
                    opened.append(stack.enter_context(open_runtime("torch", resolved.source, device="cpu")))
                resolved.checkpoint_logits[key] = opened[0](batch)
            return resolved.checkpoint_logits[key]

        yield infer
