"""A graph to a plan: network, configuration, build, and what is heard and seen of it."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.engine.api import Heard, make_logger, network_flags, preload_cublas, start
from toolchain.engine.inspector import summarise
from toolchain.engine.plan import AMPERE
from toolchain.errors import InputError, MachineError, UsageError
from toolchain.files import write_bytes
from toolchain.progress import bar

log = logging.getLogger(__name__)

Shapes = dict[str, tuple[tuple[int, ...], ...]]
"""Input name -> its shapes at kMIN, kOPT and kMAX."""

TURING = 75


@dataclass(frozen=True)
class Options:
    """Choices of a build that change the plan but not what it computes."""

    workspace_mb: int | None = None
    level: int | None = None
    version_compatible: bool = False
    hardware: str = "none"

    def check(self, sm: int) -> None:
        """Refuse what this GPU cannot build.

        Raises:
            UsageError: a compatibility that excludes it.
        """
        least = {"ampere-plus": AMPERE, "same-compute-capability": TURING}.get(self.hardware, 0)
        if sm < least:
            raise UsageError(
                f"--hardware-compatible {self.hardware}: needs compute capability {least // 10}.{least % 10}, and this "
                f"GPU has {sm // 10}.{sm % 10}; a T4 neither builds nor runs such a plan. Leave it out."
            )


@dataclass
class Built:
    """A plan and what is known of its making."""

    plan: bytes
    layers: str
    heard: Heard
    seconds: float
    summary: dict[str, Any]


class Builder:
    """TensorRT's builder with a logger that is listened to; one object for one plan."""

    def __init__(self, trt: Any, where: str) -> None:
        """Register the stock plugins and make a builder; `where` names the graph in messages."""
        self.trt, self.where = trt, where
        self.logger, self.heard = make_logger(trt)
        preload_cublas()
        trt.init_libnvinfer_plugins(self.logger, "")  # before anything is parsed or deserialised
        self._builder = start(trt.Builder, self.logger, self.heard)

    def parse(self, graph: bytes, *, strongly_typed: bool) -> Any:
        """Return the network of an ONNX graph; when strongly typed, its types are exactly the graph's.

        Raises:
            InputError: TensorRT cannot parse it; the message has its first error.
        """
        network = self.empty(strongly_typed=strongly_typed)
        parser = self.trt.OnnxParser(network, self.logger)
        if not parser.parse(graph):
            found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
            first = " ".join(found[0].split()).rstrip(".") if found else self.heard.why
            raise InputError(f"{self.where}: TensorRT cannot parse it: {first}. Report this bug with the graph.")
        self._parser = parser  # the network reads weights that the parser holds
        return network

    def empty(self, *, strongly_typed: bool) -> Any:
        """Return a network to fill through the network API."""
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
        """Build the plan; `implicit` names builder flags (FP16, INT8) of a network that is not strongly typed.

        Raises:
            InputError: TensorRT gives no plan; the message has its first error.
            MachineError: it ran out of memory.
            KeyboardInterrupt: a person stopped it.
        """
        config = self._config(network, profiles, options, timing=timing, calibrator=calibrator, implicit=implicit)
        began = time.perf_counter()
        plan = self._serialize(network, config, calibrator)
        seconds = time.perf_counter() - began
        if plan is None:
            self._refuse()
        if timing is not None:
            _keep_timing(config, timing)
        data = bytes(plan)
        layers = self.inspect(data)
        return Built(data, layers, self.heard, seconds, summarise(layers))

    def calibrate(self, network: Any, calibrator: Any) -> None:
        """Build a static network for its calibration alone; whether it then makes a good engine does not matter.

        Raises:
            Exception: what went wrong in the calibrator.
            KeyboardInterrupt: a person stopped it.
        """
        config = self._config(network, [], Options(), timing=None, calibrator=calibrator, implicit=("INT8",))
        self._serialize(network, config, calibrator)

    def _serialize(self, network: Any, config: Any, calibrator: Any) -> Any:
        with bar(None, "building the engine") as advance:
            monitor = _monitor(self.trt, advance)
            config.progress_monitor = monitor
            with _noted(monitor):
                plan = self._builder.build_serialized_network(network, config)
        if monitor.interrupted:
            raise KeyboardInterrupt
        if calibrator is not None and calibrator.error is not None:
            raise calibrator.error
        return plan

    def _refuse(self) -> None:
        if self.heard.out_of_memory:
            raise MachineError(
                f"{self.where}: TensorRT ran out of memory: {self.heard.why}. "
                "Free the GPU, or build for less: --batch-size, --seq-len, --workspace-mb."
            )
        raise InputError(f"{self.where}: TensorRT gives no engine: {self.heard.why}. See all that it says with -vv.")

    def _config(
        self,
        network: Any,
        profiles: list[Shapes],
        options: Options,
        *,
        timing: Path | None,
        calibrator: Any,
        implicit: tuple[str, ...],
    ) -> Any:
        """Return the configuration, through Polygraphy, which knows what each release lacks."""
        from polygraphy.backend.trt import CreateConfig, Profile
        from polygraphy.exception import PolygraphyException

        trt = self.trt
        choices: dict[str, Any] = {}
        if options.workspace_mb:
            choices["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace_mb * 2**20}
        if options.level is not None:
            choices["builder_optimization_level"] = options.level
        if options.hardware != "none":
            level = options.hardware.replace("-", "_").upper()
            choices["hardware_compatibility_level"] = trt.HardwareCompatibilityLevel.__members__[level]
        if timing is not None and timing.exists():
            choices["load_timing_cache"] = str(timing)
        shapes = [_polygraphy_profile(Profile(), one) for one in profiles]
        flags = {name.lower(): True for name in implicit}
        if calibrator is not None:
            choices["calibrator"] = calibrator
        try:
            with _quiet():
                make = CreateConfig(
                    profiles=shapes or None, version_compatible=options.version_compatible, **flags, **choices
                )
                return make(self._builder, network)
        except PolygraphyException as error:
            raise InputError(
                f"{self.where}: {' '.join(str(error).split()).rstrip('.')}. Change that option."
            ) from error

    def inspect(self, plan: bytes) -> str:
        """Return the engine inspector's JSON of a plan.

        Raises:
            InputError: TensorRT does not load what it has just built.
        """
        runtime = start(self.trt.Runtime, self.logger, self.heard)
        if hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True  # it was made a moment ago, by us
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise InputError(f"{self.where}: TensorRT does not load its own plan: {self.heard.why}. Report this bug.")
        inspector = engine.create_engine_inspector()
        context = engine.create_execution_context()
        if context is not None:  # without shapes, types and formats are not known to it
            names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
            for name in names:
                if engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT:
                    context.set_input_shape(name, tuple(engine.get_tensor_profile_shape(name, 0)[1]))
            inspector.execution_context = context
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))


def _polygraphy_profile(profile: Any, shapes: Shapes) -> Any:
    for name, (least, best, most) in shapes.items():
        profile.add(name, min=least, opt=best, max=most)
    return profile


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Polygraphy's own lines off the terminal; its errors come as exceptions."""
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        yield


def _keep_timing(config: Any, file: Path) -> None:
    """Keep the timing cache for the next build; a plan is not lost for want of it."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        write_bytes(file, bytes(cache.serialize()))
    except OSError as error:
        log.warning("%s: the timing cache was not kept (%s)", file, error.strerror)


@contextlib.contextmanager
def _noted(monitor: Any) -> Iterator[None]:
    """Let Ctrl-C be noted, and the next step stop the build.

    Python would raise KeyboardInterrupt in whatever call back into Python runs next, where TensorRT swallows it.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: Any) -> None:
        monitor.interrupted = True
        log.warning("stopping at TensorRT's next step; again ends it at once")
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)


def _monitor(trt: Any, advance: Callable[[], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is only known here
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            advance()
            return not self.interrupted

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
