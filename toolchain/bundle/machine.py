"""What engines are built for: the GPU and the TensorRT of this machine, or a GPU that TensorRT-RTX compiles for."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from toolchain.engine.cuda import import_pycuda, open_gpu
from toolchain.engine.plan import TURING, Tag
from toolchain.engine.releases import RELEASES, Release, import_release, release_of
from toolchain.engine.targets import named_targets, parse_targets, require_units
from toolchain.errors import MachineError, UsageError
from toolchain.recipe import Recipe
from toolchain.recipe.groups import ENGINE
from toolchain.recipe.options import flag
from toolchain.runtimes.device import choose_device


@dataclass(frozen=True)
class Machine:
    """A GPU and a release of TensorRT: its module, and the tag of the plans that run there.

    `gpu` is the GPU's name, `cuda` the CUDA version of its driver, `device` its number here, such as cuda:0. They are
    None if plans are compiled for a GPU that this machine need not have.
    """

    trt: Any  # the module of the release, which has no types
    tag: Tag
    gpu: str | None = None
    cuda: str | None = None
    device: str | None = None

    @property
    def release(self) -> Release:
        """The release of TensorRT."""
        return release_of(self.trt)


def find_machine(device: str, backend: str = "trt") -> Machine:
    """Return the GPU of this machine, and the TensorRT that a backend of RELEASES uses.

    Raises:
        MachineError: one of them is missing, or the GPU is too old.
        UsageError: the device's name is unknown, or it is the CPU.
    """
    name = RELEASES[backend].name
    if device == "cpu":
        raise UsageError(f"--device cpu: {name} runs on GPUs only. Choose cuda[:N], or --backend ort.")
    place = choose_device(device, cuda=True)
    trt = import_release(backend)
    import_pycuda()
    with open_gpu(place) as gpu:
        if gpu.sm < TURING:  # the oldest architecture that TensorRT 10 and 11 build for
            raise MachineError(
                f"{gpu.name}: compute capability {gpu.sm // 10}.{gpu.sm % 10}, and {name} needs 7.5 (Turing). "
                "Use another GPU, or --backend ort."
            )
        return Machine(trt, Tag(gpu.sm, trt.__version__, backend), gpu.name, gpu.cuda, place)


def find_targets(recipe: Recipe) -> list[Machine]:
    """Return what the engines of a recipe are built for: its `--target`s, or this machine.

    Raises:
        MachineError: this machine lacks TensorRT, or a GPU where one is needed.
        UsageError: see `check_engine_options`.
    """
    backend = recipe.backend or "trt"
    if not RELEASES[backend].cross:
        return [find_machine(recipe.device)]
    trt = import_release(backend)
    if recipe.target is not None:
        return [Machine(trt, Tag(sm, trt.__version__, backend)) for sm in parse_targets(trt, recipe.target)]
    try:
        sm = find_machine(recipe.device, backend).tag.sm
    except MachineError as error:
        raise UsageError(f"--backend {backend}: for which GPU? ({error}) Name it, such as --target t4.") from error
    return [Machine(trt, Tag(parsed, trt.__version__, backend)) for parsed in parse_targets(trt, f"sm{sm}")]


def check_precision(machine: Machine, precision: str) -> None:
    """Refuse a precision that a GPU lacks, or that its release of TensorRT has no graph for.

    Raises:
        MachineError: it says what the precision needs.
    """
    if precision not in machine.release.graphs:
        raise MachineError(
            f"--precision {precision}: {machine.release.name} does not take it. Install TensorRT 10 or 11."
        )
    require_units(precision, machine.tag.sm, machine.gpu or f"--target sm{machine.tag.sm}")


def _require_units_of(target: str | None, precision: str) -> None:
    """Refuse a precision that a named target lacks; that no release compiles for one before Turing is said later."""
    for sm in named_targets(target or ""):
        if sm >= TURING:
            require_units(precision, sm, f"--target sm{sm}")


def check_engine_options(recipe: Recipe, *, precision: str) -> None:
    """Refuse options of an engine that its release lacks, before any work is done.

    A release that is not installed is not an error here.

    Raises:
        MachineError: a target lacks the precision.
        UsageError: naming the option, or a target that the release does not compile for.
    """
    release = RELEASES.get(recipe.backend or "trt")
    _require_units_of(recipe.target, precision)
    if recipe.target is not None and not (release and release.cross):
        raise UsageError(f"--target {recipe.target}: only with --backend trt-rtx. Add it.")
    if precision == "fp8" and recipe.residual == "int8":
        raise UsageError("--residual int8: not in FP8. Give --residual float16 with --precision fp8.")
    if release is None:
        return
    if precision == "fp8" and recipe.attention == "plugin":
        raise UsageError("--attention plugin: its plugins compute FP16 or INT8. Leave it out with --precision fp8.")
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe) if field.name in ENGINE}
    for name in (name for name in release.lacks if getattr(recipe, name) != defaults[name]):
        raise UsageError(f"{flag(name)}: not with {release.name}: {release.lacks[name]}. Leave the option out.")
    if not release.cross:
        return
    try:
        machines = find_targets(recipe)
    except MachineError:
        return
    for machine in machines if recipe.target else ():
        check_precision(machine, precision)
    if precision == "fp32" and (turing := [one for one in machines if one.tag.sm == TURING]):
        raise UsageError(
            f"--target sm{turing[0].tag.sm}: {release.name} computes no float32 GEMM on Turing. "
            "Build with --precision fp16 or int8."
        )
