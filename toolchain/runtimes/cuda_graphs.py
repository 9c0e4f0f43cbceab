"""CUDA graphs for PyTorch: the kernels of each bucket are captured once and replayed with one launch per batch.

A batch is padded to its bucket and copied into the input tensors of the captured graph. Its logits are copied out
before the next replay overwrites them. This follows docs.pytorch.org, "CUDA semantics", section "CUDA Graphs".
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch
from toolchain.errors import MachineError, first_line
from toolchain.runtimes.buckets import bucket, padded_batch

if TYPE_CHECKING:
    import torch

# Largest number of captured graphs. Another capture then replaces the least recently used graph. All graphs share one
# memory pool.
MOST_GRAPHS = 64

# Number of runs before a capture. In these runs, libraries choose kernels and allocate memory, which must not happen
# during the capture.
WARM_UPS = 3

# A function whose GPU work is captured; it returns its result.
Work = Callable[[], "torch.Tensor"]

# A function that captures work. It returns a function that replays the work, and the tensor that then holds the result.
Capture = Callable[[Work], tuple[Callable[[], None], "torch.Tensor"]]


@dataclass(frozen=True)
class CapturedBucket:
    """The captured graph of one bucket: its input tensors (int32), a function that replays it, and its logits."""

    inputs: "dict[str, torch.Tensor]"
    replay: Callable[[], None]
    logits: "torch.Tensor"


class GraphRunner:
    """Runs batches of any shape: it pads each to a bucket, and captures a CUDA graph for each bucket on first use."""

    def __init__(
        self, logits: "Callable[[dict[str, torch.Tensor]], torch.Tensor]", place: str, capture: Capture, longest: int
    ) -> None:
        """Store the arguments; nothing is captured yet.

        `logits` maps inputs to logits on the device `place`, `capture` captures such work (see `cuda_capture`), and
        `longest` is the largest length in tokens that the model takes.
        """
        self._logits, self._place, self._capture, self._longest = logits, place, capture, longest
        self._kept: OrderedDict[tuple[int, int], CapturedBucket] = OrderedDict()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Return the logits of a batch, float32 [batch, classes]. The device is idle when it returns."""
        import torch

        rows, length = batch["input_ids"].shape
        shape = bucket(rows, length, longest=self._longest)
        with torch.inference_mode():
            if shape not in self._kept:
                if len(self._kept) == MOST_GRAPHS:
                    self._kept.popitem(last=False)
                self._kept[shape] = self._capture_bucket(list(batch), shape)
            self._kept.move_to_end(shape)
            captured = self._kept[shape]
            for name, array in padded_batch(batch, *shape).items():
                captured.inputs[name].copy_(torch.from_numpy(array))
            captured.replay()
            return np.array(captured.logits[:rows].cpu().numpy())

    def _capture_bucket(self, names: list[str], shape: tuple[int, int]) -> CapturedBucket:
        import torch

        inputs = {name: torch.zeros(shape, dtype=torch.int32, device=self._place) for name in names}
        mask = inputs["attention_mask"]
        mask.fill_(1)
        if shape[1] > 1:
            mask[0, -1] = 0  # a padded position, because some models skip the mask without one, and it must be captured
        replay, logits = self._capture(lambda: self._logits(inputs))
        return CapturedBucket(inputs, replay, logits)


def cuda_capture(place: str) -> Capture:
    """Return a function that captures GPU work on `cuda:N` as a CUDA graph. All its graphs share one memory pool.

    The returned function raises MachineError if the work cannot be captured, for example because it waits for the GPU.
    """
    import torch

    cuda: Any = torch.cuda
    pool = cuda.graph_pool_handle()

    def capture(work: Work) -> Any:
        with cuda.device(place):
            stream = cuda.Stream()
            stream.wait_stream(cuda.current_stream())
            with cuda.stream(stream):
                for _ in range(WARM_UPS):
                    work()
            cuda.current_stream().wait_stream(stream)
            graph = cuda.CUDAGraph()
            try:
                with cuda.graph(graph, pool=pool):
                    logits = work()
            except RuntimeError as error:
                why = first_line(error).rstrip(".")
                raise MachineError(
                    f"--cuda-graphs: PyTorch cannot capture this model ({why}). Leave the option out."
                ) from error
        return graph.replay, logits

    return capture
