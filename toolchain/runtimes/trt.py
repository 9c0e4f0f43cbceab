"""TensorRT and TensorRT-RTX: they run a plan through PyCUDA, without torch.

A lane is a CUDA stream with its own buffers, allocated once for the largest shape. A batch that is larger than the
plan's profiles allow is split, and its pieces alternate between lanes, so that one is copied while another computes.
"""

import functools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolchain.base.tensors import Batch, Infer
from toolchain.engine.api import LogCollector, create, make_logger, make_profiler, preload_cublas
from toolchain.engine.contexts import Contexts, make_contexts
from toolchain.engine.cuda import CudaGraph, Gpu, nbytes, open_gpu
from toolchain.engine.plan import Tag, check_plan, read_plan
from toolchain.engine.releases import import_release
from toolchain.engine.rtx import check_validity
from toolchain.engine.shapes import Profile, choose_profile
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.graph.plugin_graph import pack_batch
from toolchain.records.plan import PlanRecord
from toolchain.runtimes.buckets import bucket, padded_batch

# Number of CUDA streams: one computes while the other copies. More streams help only if several callers wait, as in
# serving.
LANES = 2

# Names of the copies to and from the device, in reports.
UPLOAD, DOWNLOAD = "batch to device", "logits to host"

# An optimisation profile and the input shapes. A captured graph is valid only for these.
Key = tuple[Any, ...]

# A function that receives the name of a layer, UPLOAD or DOWNLOAD, and its duration in ms.
Report = Callable[[str, float], None]


@contextmanager
def open_trt(
    plan: Path,
    *,
    device: str = "cuda:0",
    precision: str = "fp32",
    cuda_graphs: bool = False,
    lanes: int = LANES,
    report: Report | None = None,
    pinned: bool = False,
    digests: Mapping[str, str] | None = None,
    backend: str = "trt",
) -> Iterator[Infer]:
    """Yield `infer`, a function that runs a plan on a batch, after checking the plan's digest, GPU and TensorRT.

    `infer` works only in the thread that opened the runtime.

    Args:
        plan: the path of the plan; its record plan.json is in the same folder.
        device: `cuda[:N]`.
        precision: has no effect, because the plan has its precision.
        cuda_graphs: capture a CUDA graph for each shape and replay it. So that there are few shapes, the number of rows
            is padded to a power of two, and the length to the largest of its profile. With TensorRT-RTX, which has one
            profile, the length is padded to a multiple of 8.
        lanes: the number of CUDA streams.
        report: called with the time of each layer and copy. If given, TensorRT's profiler is on, and nothing runs
            concurrently.
        pinned: do not read TensorRT-RTX's cache, which a digest of the bundle given by `--trust` does not cover.
        digests: name -> SHA-256 of each file of the bundle in the plan's folder.
        backend: the TensorRT release that runs the plan, a key of RELEASES.

    Raises:
        InputError: the plan or its record is damaged.
        MachineError: this machine lacks TensorRT or a GPU, or the plan is for another machine.
        UsageError: `cuda_graphs` is set for a plan without padding, whose batches all differ in shape.
    """
    trt = import_release(backend)
    with open_gpu(device) as gpu:
        record = check_plan(plan, Tag(gpu.sm, trt.__version__, backend), digests=digests)
        if cuda_graphs and record["layout"] == "packed":
            raise UsageError(
                f"--cuda-graphs: {plan} has no padding, so batches all differ in shape. Leave the option out."
            )
        runner = Runner(
            trt, gpu, plan, record, cuda_graphs=cuda_graphs, lanes=1 if report else lanes, report=report, pinned=pinned
        )
        try:
            yield runner.infer
        finally:
            runner.close()


# The function that opens the backend trt-rtx.
open_rtx = functools.partial(open_trt, backend="trt-rtx")


class Runner:
    """A TensorRT engine with its lanes, which runs batches of any size."""

    def __init__(
        self,
        trt: Any,
        gpu: Gpu,
        plan: Path,
        record: PlanRecord,
        *,
        cuda_graphs: bool,
        lanes: int,
        report: Report | None,
        pinned: bool,
    ) -> None:
        """Deserialise a plan that `check_plan` accepted, and allocate buffers for its largest shape."""
        self._where = str(plan)
        self._profiles = [Profile.from_json(one) for one in record["profiles"]]
        self._packed = record["layout"] == "packed"
        self._graphs, self._error = cuda_graphs, gpu.driver.Error
        logger, self._messages = make_logger(trt)
        preload_cublas()
        trt.init_libnvinfer_plugins(logger, "")  # needed to load a plan with plugins
        runtime = create(trt.Runtime, logger, self._messages)
        if record["version_compatible"]:
            runtime.engine_host_code_allowed = True  # safe: read_plan compares the plan with the digest in its record
        data = read_plan(plan, record)
        if hasattr(runtime, "get_engine_validity"):
            check_validity(trt, runtime, data, plan)
        self._engine = runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise InputError(f"{plan}: TensorRT cannot load it: {self._messages.first_error}. Build it again.")
        self._kept: Any = (logger, runtime)  # both must live longer than the engine
        self._contexts = make_contexts(
            trt, self._engine, plan, record["plan_sha256"], cuda_graphs=cuda_graphs, pinned=pinned
        )
        self._captures = cuda_graphs and not self._contexts.captures
        self._lanes = [
            Lane(trt, gpu, self._engine, self._contexts, self._messages, self._where, report) for _ in range(lanes)
        ]

    def infer(self, batch: Batch) -> NDArray[np.float32]:
        """Return the logits of a batch, float32 [batch, classes]. The device is idle when it returns."""
        try:
            return self._infer(batch)
        except self._error as error:
            raise MachineError(f"{self._where}: the GPU stopped ({error}). Run `toolchain doctor`.") from error

    def _infer(self, batch: Batch) -> NDArray[np.float32]:
        rows = len(batch["input_ids"])
        if not self._lanes:
            raise InputError(f"{self._where}: the runtime was closed. Open it again.")
        most = max(profile.batch[2] for profile in self._profiles)
        pieces = [slice(start, start + most) for start in range(0, rows, most)]
        found: list[NDArray[np.float32]] = []
        waiting: deque[Lane] = deque()
        try:
            for index, piece in enumerate(pieces):
                if len(waiting) == len(self._lanes):
                    found.append(waiting.popleft().result())
                lane = self._lanes[index % len(self._lanes)]
                self._enqueue(lane, {name: array[piece] for name, array in batch.items()})
                waiting.append(lane)
            found += [lane.result() for lane in waiting]
        except BaseException:
            for lane in self._lanes:  # the next batch overwrites their buffers
                lane.wait()
            raise
        return np.concatenate(found)

    def _enqueue(self, lane: "Lane", batch: Batch) -> None:
        rows, length = batch["input_ids"].shape
        if self._packed:
            batch = _with_a_token(batch)
            longest = int(batch["attention_mask"].sum(axis=1).max())
            index = choose_profile(self._profiles, rows=rows, length=longest)
            lane.enqueue(index, pack_batch(batch), rows=rows, graph=False)
            return
        index = choose_profile(self._profiles, rows=rows, length=length)
        profile = self._profiles[index]
        wide, deep = max(length, profile.length[0]), max(rows, profile.batch[0])
        if self._graphs:
            # A release that captures graphs itself has one profile. Its maximum is the length of the longest row that
            # the plan accepts, so the length is only padded to a bucket.
            step = bucket(rows, wide, longest=profile.length[2])[1]
            wide = profile.length[2] if self._captures else step
            deep = min(1 << (deep - 1).bit_length(), profile.batch[2])
        inputs = padded_batch(batch, deep, wide)
        lane.enqueue(index, inputs, rows=rows, graph=self._captures)

    def close(self) -> None:
        """Free the engine and its buffers, even if a caller keeps `infer`."""
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._contexts.close()
        self._engine = self._kept = None


def _with_a_token(batch: Batch) -> Batch:
    """Return the batch with a token in each row that has none, so that the (unused) logits of such rows are finite."""
    mask = batch["attention_mask"].copy()
    mask[:, 0] |= (mask.sum(axis=1) == 0).astype(mask.dtype)
    return {**batch, "attention_mask": mask}


class Lane:
    """A CUDA stream, its buffers on host and device, and TensorRT execution contexts that share one workspace.

    Without CUDA graphs there is one context. A captured graph is valid only while its context keeps the shape of the
    capture, so each graph has its own context. Contexts run one after another, so they can share the workspace.
    """

    def __init__(
        self,
        trt: Any,
        gpu: Gpu,
        engine: Any,
        contexts: Contexts,
        messages: LogCollector,
        where: str,
        report: Report | None,
    ) -> None:
        """Create the stream, and allocate buffers for the largest shape of all profiles."""
        self._trt, self._gpu, self._engine, self._messages, self._where = trt, gpu, engine, messages, where
        self._new_context = contexts.create
        self._report = report
        # A reference to the profiler, because a context does not keep it alive.
        self._profiler = make_profiler(trt, report) if report else None
        self._stream = gpu.stream()
        self._workspace = gpu.buffer(contexts.workspace_bytes)
        self._contexts: dict[Key | None, Any] = {}
        self._captured: dict[Key, CudaGraph] = {}
        self._profile: int | None = None
        self._rows = 0
        self._host: dict[str, NDArray[Any]] = {}
        self._device: dict[str, Any] = {}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        profiles = range(engine.num_optimization_profiles)
        most_rows = most_tokens = 0
        for name in self._inputs:
            largest = [tuple(engine.get_tensor_profile_shape(name, index)[2]) for index in profiles]
            most_rows = max([most_rows, *(shape[0] for shape in largest)])
            most_tokens = max([most_tokens, *(shape[-1] for shape in largest)])
            self._allocate(name, max(largest, key=np.prod))
        # The shape of a row of logits; -1 stands for the tokens per row of the batch.
        self._sizes, self._row = tuple(engine.get_tensor_shape("logits"))[1:], ()
        self._allocate("logits", (most_rows, *(most_tokens if size < 0 else size for size in self._sizes)))

    def _allocate(self, name: str, shape: tuple[int, ...]) -> None:
        dtype = self._trt.nptype(self._engine.get_tensor_dtype(name))
        self._host[name] = self._gpu.pinned((int(np.prod(shape)),), dtype)
        self._device[name] = self._gpu.buffer(nbytes(shape, dtype))

    def enqueue(self, profile: int, inputs: dict[str, NDArray[Any]], *, rows: int, graph: bool) -> None:
        """Start a run of `inputs` in an optimisation profile, without waiting for it.

        The first `rows` rows are real; `result` returns their logits. With `graph`, the run is captured as a CUDA graph
        if its shapes are new. A graph that was captured for these shapes is replayed.
        """
        self._rows = rows
        self._row = tuple(inputs["input_ids"].shape[-1] if size < 0 else size for size in self._sizes)
        for name in self._inputs:
            array = inputs[name]
            # This also converts the array to the dtype of the engine's input.
            self._host[name][: array.size] = array.reshape(-1)
        shapes = {name: inputs[name].shape for name in self._inputs}
        key = (profile, *shapes.values())
        if key in self._captured:
            self._captured[key].launch()
            return
        context = self._set_up(key if graph else None, profile, shapes)
        computed = len(inputs["input_ids"]) if graph else rows
        self._run(context, shapes, computed)
        if graph:
            # Wait for the run above: it may allocate memory, which must not happen during the capture.
            self._stream.synchronize()
            self._captured[key] = CudaGraph(self._stream, lambda: self._run(context, shapes, computed))

    def _set_up(self, key: "Key | None", profile: int, shapes: dict[str, tuple[int, ...]]) -> Any:
        """Return an execution context with the profile, the shapes and all addresses set.

        `key` identifies the context: one for each captured graph, and None for the context of all other runs.
        """
        new = key not in self._contexts
        if new:
            context = self._new_context(int(self._workspace))
            if context is None:
                why = self._messages.first_error
                raise MachineError(f"{self._where}: TensorRT cannot create a context: {why}. Free GPU memory.")
            if self._profiler is not None:
                context.profiler = self._profiler
            self._contexts[key] = context
        context = self._contexts[key]
        if new or (key is None and profile != self._profile):
            if not context.set_optimization_profile_async(profile, self._stream.handle):
                self._fail(f"use profile {profile}")
            self._profile = profile
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                self._fail(f"take the shape {list(shape)} for {name}")
        for name, memory in self._device.items():
            if not context.set_tensor_address(name, int(memory)):
                self._fail(f"take an address for {name}")
        return context

    def _run(self, context: Any, shapes: dict[str, tuple[int, ...]], rows: int) -> None:
        with self._timed(UPLOAD):
            for name, shape in shapes.items():
                self._gpu.upload(self._device[name], self._host[name][: int(np.prod(shape))], self._stream)
        if not context.execute_async_v3(self._stream.handle):
            self._fail("run this batch")
        with self._timed(DOWNLOAD):
            count = rows * int(np.prod(self._row))
            self._gpu.download(self._host["logits"][:count], self._device["logits"], self._stream)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """Run the body, which starts a copy. If a report is wanted, wait for the copy and report its time as `name`."""
        start = time.perf_counter()
        yield
        if self._report:
            self.wait()
            self._report(name, 1000 * (time.perf_counter() - start))

    def wait(self) -> None:
        """Wait until the stream is idle."""
        self._stream.synchronize()

    def result(self) -> NDArray[np.float32]:
        """Wait for the enqueued run, and return its logits, float32 [rows, *row]."""
        self.wait()
        logits = self._host["logits"][: self._rows * int(np.prod(self._row))]
        return logits.reshape(self._rows, *self._row).astype(np.float32)

    def close(self) -> None:
        """Wait until the stream is idle, then free graphs, contexts and buffers."""
        with suppress(self._gpu.driver.Error):  # if the GPU stopped, its error has been raised already
            self.wait()
        for graph in self._captured.values():
            with suppress(MachineError):  # if the GPU stopped, its first error has been raised already
                graph.close()
        for held in (self._captured, self._contexts, self._device, self._host):
            held.clear()
        self._workspace = self._engine = None

    def _fail(self, what: str) -> None:
        why = self._messages.first_error
        raise InputError(f"{self._where}: TensorRT cannot {what}: {why}. Check the GPU with `toolchain doctor`.")
