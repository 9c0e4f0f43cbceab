"""An ONNX Runtime session whose inputs and outputs stay where it computes: one set of buffers for each shape.

Nothing is allocated for a shape that was seen before. With CUDA graphs ONNX Runtime records each bucket's work the
first time and replays it: addresses and shapes must be those that were recorded, so batches are padded to their bucket.
As documented at onnxruntime.ai: I/O binding, and "Using CUDA Graphs" of the CUDA provider.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.runtimes.buckets import bucket, padded_batch
from toolchain.tensors import Batch

MOST_SHAPES = 64
"""Buffers are dropped for shapes that were used longest ago; recorded graphs cannot be, so later buckets have none."""

UNRECORDED = "-1"
"""The `gpu_graph_id` of a run that is neither recorded nor replayed."""

Shape = tuple[int, int]


@dataclass(frozen=True)
class Buffers:
    """One shape's inputs by name and its logits, on the device, and the options of its runs."""

    inputs: dict[str, Any]
    logits: Any
    binding: Any
    options: Any


class Bound:
    """A session with its buffers."""

    def __init__(self, session: Any, device: str, *, graphs: bool = False) -> None:
        """Take a session that computes on `device`, `cpu` or `cuda:N`."""
        kind, _, number = device.partition(":")
        self._session, self._place, self._graphs = session, (kind, int(number or 0)), graphs
        self._names = [entry.name for entry in session.get_inputs()]
        self._classes = int(session.get_outputs()[0].shape[-1])
        self._kept: OrderedDict[Shape, Buffers] = OrderedDict()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Return the logits of a batch, float32 [batch, classes]; the device is idle then."""
        rows, length = batch["input_ids"].shape
        shape = bucket(rows, length) if self._graphs else (rows, length)
        held = self._buffers(shape)
        ready = padded_batch({name: batch[name] for name in self._names}, *shape)
        for name, array in ready.items():
            held.inputs[name].update_inplace(np.ascontiguousarray(array, np.int32))
        self._session.run_with_iobinding(held.binding, held.options)
        return np.array(held.logits.numpy()[:rows], np.float32)  # a copy: the buffer is written to next time

    def _buffers(self, shape: Shape) -> Buffers:
        if shape not in self._kept:
            if len(self._kept) == MOST_SHAPES and not self._graphs:
                self._kept.popitem(last=False)
            self._kept[shape] = self._made(shape)
        self._kept.move_to_end(shape)
        return self._kept[shape]

    def _made(self, shape: Shape) -> Buffers:
        import onnxruntime

        def empty(size: Shape, dtype: type) -> Any:
            return onnxruntime.OrtValue.ortvalue_from_shape_and_type(size, dtype, *self._place)

        inputs = {name: empty(shape, np.int32) for name in self._names}
        logits = empty((shape[0], self._classes), np.float32)
        binding, options = self._session.io_binding(), onnxruntime.RunOptions()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output("logits", logits)
        if self._graphs:
            number = str(len(self._kept) + 1) if len(self._kept) < MOST_SHAPES else UNRECORDED
            options.add_run_config_entry("gpu_graph_id", number)
        return Buffers(inputs, logits, binding, options)
