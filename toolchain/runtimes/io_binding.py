"""I/O binding: an ONNX Runtime session whose inputs and outputs are in buffers on the device, one set for each shape.

Nothing is allocated for a shape that was seen before. With CUDA graphs, ONNX Runtime captures the kernels of a bucket
on its first run and replays them later. A replay needs the addresses and shapes of the capture, so batches are padded
to their bucket. This follows onnxruntime.ai: "I/O Binding", and "Using CUDA Graphs" of the CUDA provider.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch
from toolchain.runtimes.buckets import bucket, padded_batch

# Largest number of shapes with buffers. Without CUDA graphs, a new shape then replaces the least recently used one.
# Captured graphs cannot be dropped, so with CUDA graphs, the buckets after this number run without a graph.
MOST_SHAPES = 64

# The value of `gpu_graph_id` for a run that is neither captured nor replayed.
WITHOUT_GRAPH = "-1"

# Number of rows, and tokens per row.
Shape = tuple[int, int]


@dataclass(frozen=True)
class Buffers:
    """The device buffers of one shape (inputs by name, logits), their I/O binding, and the run options to use."""

    inputs: dict[str, Any]
    logits: Any
    binding: Any
    options: Any


class BoundSession:
    """An ONNX Runtime session with buffers for the shapes that it has run."""

    def __init__(self, session: Any, device: str, *, graphs: bool = False) -> None:
        """Wrap a session that runs on `device`, `cpu` or `cuda:N`.

        With `graphs`, CUDA graphs are used; the session must have been created with them enabled.
        """
        kind, _, number = device.partition(":")
        self._session, self._place, self._graphs = session, (kind, int(number or 0)), graphs
        self._names = [entry.name for entry in session.get_inputs()]
        # The shape of a row of logits. A size that is a name, not a number, stands for the tokens per row of the batch.
        self._row = session.get_outputs()[0].shape[1:]
        self._kept: OrderedDict[Shape, Buffers] = OrderedDict()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Return the logits of a batch, float32 [batch, *row]. The device is idle when it returns."""
        rows, length = batch["input_ids"].shape
        shape = bucket(rows, length) if self._graphs else (rows, length)
        buffers = self._buffers(shape)
        ready = padded_batch({name: batch[name] for name in self._names}, *shape)
        for name, array in ready.items():
            buffers.inputs[name].update_inplace(np.ascontiguousarray(array, np.int32))
        self._session.run_with_iobinding(buffers.binding, buffers.options)
        found = buffers.logits.numpy()[:rows]
        found = found[:, :length] if found.ndim == 3 else found
        return np.array(found, np.float32)  # copied, because the next run overwrites the buffer

    def _buffers(self, shape: Shape) -> Buffers:
        if shape not in self._kept:
            if len(self._kept) == MOST_SHAPES and not self._graphs:
                self._kept.popitem(last=False)
            self._kept[shape] = self._new_buffers(shape)
        self._kept.move_to_end(shape)
        return self._kept[shape]

    def _new_buffers(self, shape: Shape) -> Buffers:
        import onnxruntime

        def empty(size: tuple[int, ...], dtype: type) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(size, dtype, *self._place)

        inputs = {name: empty(shape, np.int32) for name in self._names}
        logits = empty((shape[0], *(size if isinstance(size, int) else shape[1] for size in self._row)), np.float32)
        binding, options = self._session.io_binding(), onnxruntime.RunOptions()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output("logits", logits)
        if self._graphs:
            number = str(len(self._kept) + 1) if len(self._kept) < MOST_SHAPES else WITHOUT_GRAPH
            options.add_run_config_entry("gpu_graph_id", number)
        return Buffers(inputs, logits, binding, options)
