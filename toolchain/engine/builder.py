"""Builds a plan from an ONNX graph with TensorRT's builder, and returns it with the build's log and layer counts."""

import contextlib
import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.engine.api import LogCollector, create, make_logger, network_flags, preload_cublas
from toolchain.engine.config import Options, Shapes, configure, save_timing_cache
from toolchain.engine.inspector import count_layers
from toolchain.engine.kernels import count_kernels, kernel_list, parse_kernels
from toolchain.engine.releases import release_of
from toolchain.errors import InputError, MachineError
from toolchain.records.plan import LayerCounts

log = logging.getLogger(__name__)


@dataclass
class Built:
    """The result of a build: the plan, its layers, the log and duration of the build, and the counts of the layers.

    `layers` is the JSON text of the engine inspector; for TensorRT-RTX, whose inspector needs a GPU, the JSON text of a
    KernelList.
    """

    plan: bytes
    layers: str
    messages: LogCollector
    seconds: float
    summary: LayerCounts


class Builder:
    """TensorRT's builder and a collector of its log; one object builds one plan."""

    def __init__(self, trt: Any, where: str) -> None:
        """Register TensorRT's plugins and create a builder; `where` names the graph in messages."""
        self.trt, self.where, self._name = trt, where, release_of(trt).name
        self.logger, self.messages = make_logger(trt)
        preload_cublas()
        trt.init_libnvinfer_plugins(self.logger, "")  # must come before parsing and deserialising
        self._builder = create(trt.Builder, self.logger, self.messages)

    def parse(self, graph: bytes, *, strongly_typed: bool) -> Any:
        """Parse the bytes of an ONNX file into a network. A strongly typed network has exactly the graph's types.

        Raises:
            InputError: TensorRT cannot parse the graph; the message has TensorRT's first error.
        """
        network = self.empty(strongly_typed=strongly_typed)
        parser = self.trt.OnnxParser(network, self.logger)
        if not parser.parse(graph):
            found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            first = " ".join(found[0].split()).rstrip(".") if found else self.messages.first_error
            raise InputError(
                f"{self.where}: {self._name} cannot parse the graph: {first}. Report this as a bug, with the graph."
            )
        # The parser may make an empty network of bytes that are not ONNX.
        if not (network.num_inputs and network.num_outputs):
            raise InputError(f"{self.where}: the graph has no inputs or no outputs. Give an ONNX file of an encoder.")
        self._parser = parser  # keeps the parser alive, because the network reads its weights
        return network

    def empty(self, *, strongly_typed: bool) -> Any:
        """Return an empty TensorRT network, for the ONNX parser or the network API to fill."""
        return self._builder.create_network(network_flags(self.trt, strongly_typed=strongly_typed))

    def build(
        self,
        network: Any,
        profiles: list[Shapes],
        options: Options,
        *,
        timing: Path | None,
        calibrator: Any = None,
        implicit: tuple[str, ...] = (),
    ) -> Built:
        """Build the plan of a network.

        Args:
            network: the result of `parse` or `empty`.
            profiles: the shapes of each optimisation profile.
            options: see Options.
            timing: the file of the timing cache, read before the build if it exists, and written after it; or None.
            calibrator: provides the scales of an INT8 network that is not strongly typed; else None.
            implicit: builder flags (FP16, INT8) of a network that is not strongly typed.

        Raises:
            InputError: TensorRT returns no plan; the message has TensorRT's first error.
            MachineError: TensorRT ran out of memory.
            KeyboardInterrupt: the user pressed Ctrl-C.
        """
        config = configure(
            self.trt, self._builder, profiles, options, timing=timing, calibrator=calibrator, implicit=implicit
        )
        began = time.perf_counter()
        plan = self._serialize(network, config, calibrator)
        seconds = time.perf_counter() - began
        if plan is None:
            self._raise_no_plan()
        if timing is not None:
            save_timing_cache(config, timing)
        data = bytes(plan)
        if options.target is not None:
            lists = self.messages.layer_lists
            found = kernel_list(lists, f"{self._name} {self.trt.__version__}")
            return Built(data, json.dumps(found), self.messages, seconds, count_kernels(parse_kernels(lists[0])))
        layers = self.inspect(data)
        return Built(data, layers, self.messages, seconds, count_layers(layers))

    def calibrate(self, network: Any, calibrator: Any) -> None:
        """Calibrate a network of fixed shapes: TensorRT passes the scales to `calibrator.write_calibration_cache`.

        The plan of this build is not used, so a build that gives no plan is not an error here.

        Raises:
            Exception: the exception that a method of the calibrator caught.
            KeyboardInterrupt: the user pressed Ctrl-C.
        """
        config = configure(self.trt, self._builder, [], Options(), calibrator=calibrator, implicit=("INT8",))
        self._serialize(network, config, calibrator)

    def _serialize(self, network: Any, config: Any, calibrator: Any) -> Any:
        shows_progress = hasattr(self.trt, "IProgressMonitor") and hasattr(config, "progress_monitor")
        if not shows_progress:  # TensorRT 8: Ctrl-C takes effect only at the end of the build
            return self._finished(self._builder.build_serialized_network(network, config), calibrator)
        monitor = _monitor(self.trt)
        config.progress_monitor = monitor
        with _interrupt_noted(monitor):
            plan = self._builder.build_serialized_network(network, config)
        if monitor.interrupted:
            raise KeyboardInterrupt
        return self._finished(plan, calibrator)

    @staticmethod
    def _finished(plan: Any, calibrator: Any) -> Any:
        """Return the plan, or raise the exception that a method of the calibrator caught."""
        if calibrator is not None and calibrator.error is not None:
            raise calibrator.error
        return plan

    def _raise_no_plan(self) -> None:
        if gemm := self.messages.float32_gemm:
            raise InputError(
                f"{self.where}: the GEMM {gemm} is in float32, and {self._name} has no float32 GEMM for Turing (sm75). "
                "Choose a --precision whose GEMMs are in float16 or INT8, or a later GPU such as --target sm86."
            )
        if self.messages.out_of_memory:
            raise MachineError(
                f"{self.where}: {self._name} ran out of memory: {self.messages.first_error}. "
                "Free GPU memory, or build with a smaller --batch-size, --seq-len or --workspace-mb."
            )
        why = self.messages.first_error
        raise InputError(f"{self.where}: {self._name} builds no engine: {why}. Run again with -vv to see its log.")

    def inspect(self, plan: bytes) -> str:
        """Return the layers of a plan as the JSON text of TensorRT's engine inspector.

        Raises:
            InputError: TensorRT cannot load the plan that it has just built.
        """
        runtime = create(self.trt.Runtime, self.logger, self.messages)
        if hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True  # safe: this process has just built the plan
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            why = self.messages.first_error
            raise InputError(f"{self.where}: TensorRT cannot load the plan that it just built: {why}. Report this bug.")
        inspector = engine.create_engine_inspector()
        context = engine.create_execution_context()
        if context is not None:  # the inspector needs shapes to report types and formats
            names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
            for name in names:
                if engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT:
                    context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
            inspector.execution_context = context
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))


@contextlib.contextmanager
def _interrupt_noted(monitor: Any) -> Iterator[None]:
    """Within the context, let Ctrl-C set `monitor.interrupted`, which stops the build at TensorRT's next step.

    Otherwise Python would raise KeyboardInterrupt in the next callback from TensorRT, and TensorRT would discard it.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: Any) -> None:
        monitor.interrupted = True
        log.warning("the build stops at TensorRT's next step; press Ctrl-C again to stop at once")
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _monitor(trt: Any) -> Any:
    """Return a progress monitor that stops the build once `interrupted` is set."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
