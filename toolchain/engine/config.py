"""The configuration of a build. The code is the same for all releases of TensorRT; it looks features up by name."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolchain.base.files import write_bytes
from toolchain.engine.calibrator import set_calibrator
from toolchain.engine.plan import AMPERE, TURING
from toolchain.engine.targets import set_target
from toolchain.errors import InputError, UsageError

log = logging.getLogger(__name__)

# Input name -> its shapes at kMIN, kOPT and kMAX.
Shapes = dict[str, tuple[tuple[int, ...], ...]]


@dataclass(frozen=True)
class Options:
    """Options of a build that change the plan but not its results.

    `workspace_mb` is in MiB, `level` is TensorRT's builder optimisation level, 0 to 5; None means TensorRT's default.
    `hardware` is a value of recipe.HARDWARE. `target` is the compute capability, times ten, that TensorRT-RTX compiles
    for; it is None for TensorRT, which builds for the GPU of this machine.
    """

    workspace_mb: int | None = None
    level: int | None = None
    version_compatible: bool = False
    hardware: str = "none"
    target: int | None = None

    def check(self, sm: int) -> None:
        """Refuse options that a GPU does not allow. `sm` is its compute capability times ten: 75 for a T4.

        Raises:
            UsageError: the hardware compatibility needs a later GPU.
        """
        least = {"ampere-plus": AMPERE, "same-compute-capability": TURING}.get(self.hardware, 0)
        if sm < least:
            raise UsageError(
                f"--hardware-compatible {self.hardware}: a GPU must have compute capability "
                f"{least // 10}.{least % 10} or later to build or run such a plan, and this GPU has "
                f"{sm // 10}.{sm % 10}. Leave the option out."
            )


def configure(
    trt: Any,
    builder: Any,
    profiles: list[Shapes],
    options: Options,
    *,
    timing: Path | None = None,
    calibrator: Any = None,
    implicit: tuple[str, ...] = (),
) -> Any:
    """Return the builder configuration of one build. The arguments are those of `Builder.build`.

    TF32 is off, so that an FP32 engine computes in float32. The profiling verbosity is detailed, so that layers can be
    counted. Calibration uses the last profile.

    Raises:
        InputError: TensorRT refuses an optimisation profile.
        UsageError: this release lacks the requested level of hardware compatibility.
    """
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    for name in implicit:
        config.set_flag(trt.BuilderFlag.__members__[name])
    if options.target is not None:
        set_target(trt, config, options.target)
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * 2**20)
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.hardware != "none":
        level = trt.HardwareCompatibilityLevel.__members__.get(options.hardware.replace("-", "_").upper())
        if level is None:
            raise UsageError(
                f"--hardware-compatible {options.hardware}: TensorRT {trt.__version__} lacks this level. "
                "Leave the option out."
            )
        config.hardware_compatibility_level = level
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    made = [_profile(builder, config, shapes) for shapes in profiles]
    if calibrator is not None:
        set_calibrator(config, calibrator, made)
    if timing is not None:
        _load_timing_cache(config, timing)
    return config


def _profile(builder: Any, config: Any, shapes: Shapes) -> Any:
    profile = builder.create_optimization_profile()
    for name, (least, best, most) in shapes.items():
        profile.set_shape(name, least, best, most)
    if config.add_optimization_profile(profile) < 0:
        raise InputError(f"optimisation profile {shapes}: TensorRT rejects it. Change --batch-size or --seq-len.")
    return profile


def _load_timing_cache(config: Any, file: Path) -> None:
    """Give the builder the timing cache of earlier builds, or an empty one to fill."""
    cache = config.create_timing_cache(file.read_bytes()) if file.exists() else None
    if cache is None:
        cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)


def save_timing_cache(config: Any, file: Path) -> None:
    """Save the timing cache for the next build. The plan does not depend on it, so a failure is only logged."""
    cache = config.get_timing_cache()
    if cache is None:
        return
    try:
        write_bytes(file, bytes(cache.serialize()))
    except OSError as error:
        log.warning("%s: the timing cache was not saved (%s). The next build takes longer.", file, error.strerror)
