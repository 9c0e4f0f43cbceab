"""The GPUs that engines are built for: the GPU of this machine, or with TensorRT-RTX any of its targets."""

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
    """A GPU and the TensorRT that builds a plan for it.

    `trt` is the Python module of TensorRT. `tag` has the GPU's compute capability and the version of TensorRT.

    `gpu` is the GPU's name, `cuda` the CUDA version of its driver, and `device` its name on this machine, such as
    cuda:0. All three are None if the plan is compiled for a GPU that this machine need not have.
    """

    trt: Any  # TensorRT's module has no type hints
    tag: Tag
    gpu: str | None = None
    cuda: str | None = None
    device: str | None = None

    @property
    def release(self) -> Release:
        """The entry of RELEASES for the TensorRT that the module `trt` provides."""
        return release_of(self.trt)


def find_machine(device: str, backend: str = "trt") -> Machine:
    """Return this machine's GPU `device`, with the installed TensorRT of `backend`, a key of RELEASES.

    Raises:
        MachineError: the GPU or TensorRT is missing, or the GPU is too old for it.
        UsageError: `device` is unknown, or the CPU.
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
                f"{gpu.name}: its compute capability is {gpu.sm // 10}.{gpu.sm % 10}, but {name} needs 7.5 (Turing) or "
                "later. Use another GPU, or --backend ort."
            )
        return Machine(trt, Tag(gpu.sm, trt.__version__, backend), gpu.name, gpu.cuda, place)


def find_targets(recipe: Recipe) -> list[Machine]:
    """Return one machine for each engine that a recipe asks for: its `--target`s, or else the GPU of this machine.

    Raises:
        MachineError: this machine lacks TensorRT, or a GPU where one is needed.
        UsageError: a target is unknown, or TensorRT-RTX needs a target because this machine has no GPU.
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
        raise UsageError(
            f"--backend {backend}: no --target was given, and this machine has no GPU that can be used ({error}) "
            "Name the GPU to compile for, such as --target t4."
        ) from error
    return [Machine(trt, Tag(parsed, trt.__version__, backend)) for parsed in parse_targets(trt, f"sm{sm}")]


def check_precision(machine: Machine, precision: str) -> None:
    """Raise an error if a machine's GPU or its TensorRT cannot run a precision.

    Raises:
        MachineError: the message says which GPU or TensorRT the precision needs.
    """
    if precision not in machine.release.graphs:
        raise MachineError(
            f"--precision {precision}: {machine.release.name} does not support it. Install TensorRT 10 or 11."
        )
    require_units(precision, machine.tag.sm, machine.gpu or f"--target sm{machine.tag.sm}")


def _require_units_of(target: str | None, precision: str) -> None:
    """Raise an error if a GPU in `--target` cannot compute in this precision.

    Targets before Turing are skipped here: `parse_targets` refuses them, with a message that fits better.
    """
    for sm in named_targets(target or ""):
        if sm >= TURING:
            require_units(precision, sm, f"--target sm{sm}")


def check_engine_options(recipe: Recipe, *, precision: str) -> None:
    """Raise an error, before any work is done, if a recipe has engine options that its backend's TensorRT lacks.

    TensorRT itself need not be installed for this check.

    Raises:
        MachineError: a target cannot compute in the precision.
        UsageError: an option is not supported, or TensorRT-RTX does not compile for a target. The message names it.
    """
    release = RELEASES.get(recipe.backend or "trt")
    _require_units_of(recipe.target, precision)
    if recipe.target is not None and not (release and release.cross):
        raise UsageError(
            f"--target {recipe.target}: only TensorRT-RTX builds for other GPUs than this machine's. "
            "Add --backend trt-rtx, or leave --target out."
        )
    if precision == "fp8" and recipe.residual == "int8":
        raise UsageError(
            "--residual int8: it cannot be used with --precision fp8. Give --residual float16, or leave the option out."
        )
    if release is None:
        return
    if precision == "fp8" and recipe.attention == "plugin":
        raise UsageError(
            "--attention plugin: the plugins compute in FP16 or INT8 only. Leave the option out with --precision fp8."
        )
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe) if field.name in ENGINE}
    for name in (name for name in release.lacks if getattr(recipe, name) != defaults[name]):
        raise UsageError(
            f"{flag(name)}: it cannot be used with {release.name}: {release.lacks[name]}. Leave the option out."
        )
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
