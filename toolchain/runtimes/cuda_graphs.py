"""PyTorch on a GPU with each bucket's work recorded once as a CUDA graph and replayed: one launch instead of hundreds.

Batches are padded to their bucket, copied into tensors whose addresses the graph knows, and their logits are read
before anything else runs. As documented at docs.pytorch.org, "CUDA semantics", CUDA Graphs.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.errors import MachineError
from toolchain.runtimes.buckets import bucket, padded_batch
from toolchain.tensors import Batch

if TYPE_CHECKING:
    import torch

MOST_GRAPHS = 64
"""The one used longest ago is dropped; they share their memory, and keep a kernel's arguments each."""

WARM_UPS = 3
"""Runs before recording, in which libraries choose kernels and allocate what must not be recorded."""

Work = Callable[[], "torch.Tensor"]
Capture = Callable[[Work], tuple[Callable[[], None], "torch.Tensor"]]
"""Records work; returns what replays it, and the tensor that its result is in then."""


@dataclass(frozen=True)
class Recording:
    """One bucket: its inputs by name, what replays its work, and its logits, float32."""

    inputs: "dict[str, torch.Tensor]"
    replay: Callable[[], None]
    logits: "torch.Tensor"


class Recorder:
    """Runs batches of any shape by recordings of a few shapes."""

    def __init__(
        self, logits: "Callable[[dict[str, torch.Tensor]], torch.Tensor]", place: str, capture: Capture, longest: int
    ) -> None:
        """Take what gives the logits of inputs, where it runs, what records it, and the model's longest row."""
        self._logits, self._place, self._capture, self._longest = logits, place, capture, longest
        self._kept: OrderedDict[tuple[int, int], Recording] = OrderedDict()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Return the logits of a batch, float32 [batch, classes]; the device is idle then."""
        import torch

        rows, length = batch["input_ids"].shape
        shape = bucket(rows, length, longest=self._longest)
        with torch.inference_mode():
            if shape not in self._kept:
                if len(self._kept) == MOST_GRAPHS:
                    self._kept.popitem(last=False)
                self._kept[shape] = self._recorded(list(batch), shape)
            self._kept.move_to_end(shape)
            held = self._kept[shape]
            for name, array in padded_batch(batch, *shape).items():
                held.inputs[name].copy_(torch.from_numpy(array))
            held.replay()
            return np.array(held.logits[:rows].cpu().numpy())

    def _recorded(self, names: list[str], shape: tuple[int, int]) -> Recording:
        import torch

        inputs = {name: torch.zeros(shape, dtype=torch.int32, device=self._place) for name in names}
        mask = inputs["attention_mask"]
        mask.fill_(1)
        if shape[1] > 1:
            mask[0, -1] = 0  # without padding some models leave the mask out, which must not be what is warmed up
        replay, logits = self._capture(lambda: self._logits(inputs))
        return Recording(inputs, replay, logits)


def cuda_capture(place: str) -> Capture:
    """Return what records work on `cuda:N` into graphs that share one pool of memory.

    Raises:
        MachineError: (the one returned) the work asks the processor for something on its way, so it has no graph.
    """
    import torch

    cuda: Any = torch.cuda
    pool = cuda.graph_pool_handle()

    def capture(work: Work) -> Any:
        with cuda.device(place):
            beside = cuda.Stream()
            beside.wait_stream(cuda.current_stream())
            with cuda.stream(beside):
                for _ in range(WARM_UPS):
                    work()
            cuda.current_stream().wait_stream(beside)
            graph = cuda.CUDAGraph()
            try:
                with cuda.graph(graph, pool=pool):
                    logits = work()
            except RuntimeError as error:
                first = str(error).strip().split("\n")[0].rstrip(".")
                raise MachineError(
                    f"--cuda-graphs: PyTorch cannot record this model ({first}). Leave it out."
                ) from error
        return graph.replay, logits

    return capture
