"""Find cells and objectives that are impossible on this machine, with the reason."""

import importlib.util
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from toolchain.data.tasks import load_task
from toolchain.errors import InputError, MachineError, ToolchainError
from toolchain.recipe import DEFAULT_MODEL, Recipe
from toolchain.recipe.tables import BACKENDS, QUANTIZED, imported
from toolchain.runtimes.device import choose_device
from toolchain.sweep.cells import Options


def impossible(options: Options) -> ToolchainError | None:
    """Return the error that says why a combination cannot run on this machine, or None if none is known."""
    try:
        recipe = Recipe.make(dict(options))
        load_task(recipe)
    except ToolchainError as error:
        return error
    backend = recipe.backend or "ort"
    return (
        _lacks(backend, recipe.device)
        or _lacks_torchao(backend, recipe.precision)
        or _lacks_files(recipe.model or DEFAULT_MODEL, "model")
        or (_lacks_files(recipe.data, "data") if recipe.data else None)
    )


def _lacks_files(name: str, key: str) -> InputError | None:
    """Return an error if a path does not exist, else None.

    A model's name may be a hub id, so a missing model is an error only if its name looks like a path.
    """
    begins = Path(name).parts[:1]
    local = name.startswith((".", "/", "~")) or name.count("/") > 1 or ("/" in name and Path(*begins).is_dir())
    if Path(name).exists() or (key == "model" and not local):
        return None
    return InputError(f"{key} {name}: there is no such file or folder.")


@lru_cache
def _lacks(backend: str, device: str) -> ToolchainError | None:
    """Return an error if this machine lacks the library of a backend, or the device, else None."""
    if backend not in BACKENDS or BACKENDS[backend].runs == "server":
        return None
    try:
        if backend == "openvino":
            imported("toolchain.runtimes.openvino:import_openvino")()
        elif BACKENDS[backend].gpu is True:
            imported("toolchain.bundle.machine:find_machine")(device, "trt" if backend == "ort-trt" else backend)
        else:
            gpu = BACKENDS[backend].gpu
            asks = device not in ("auto", "cpu")  # the import takes seconds, so only for a named GPU
            choose_device(device, cuda=bool(asks and gpu and imported(str(gpu))()))
    except ToolchainError as error:
        return error
    return None


def _lacks_torchao(backend: str, precision: str | None) -> MachineError | None:
    if backend != "torch" or precision not in QUANTIZED or importlib.util.find_spec("torchao"):
        return None
    return MachineError(f"--precision {precision}: PyTorch needs torchao for it. Install it with: pip install torchao.")


@lru_cache
def unmeasurable(objective: str, device: str) -> str | None:
    """Return the reason why an objective cannot be measured on this machine, or None if it can be."""
    if objective != "energy":
        return None
    from toolchain.meters.sources import BOARD, DRAM, PACKAGE, open_sources

    wanted = (BOARD,) if device.startswith("cuda") else (BOARD, PACKAGE, DRAM)
    with suppress(OSError), open_sources() as found:
        if any(source.component in wanted for source in found.sources):
            return None
    return (
        "energy cannot be measured here, because no energy counter can be read. Remove energy from the objectives, or "
        "replace it with latency"
    )


def require_measurable(objectives: tuple[str, ...], devices: set[str]) -> None:
    """Check that each objective can be measured on at least one device of the cells.

    Raises:
        MachineError: an objective cannot be measured; the message names it.
    """
    for objective in objectives:
        reasons = [unmeasurable(objective, device) for device in sorted(devices)]
        if reasons and all(reasons):
            raise MachineError(f"objectives: {reasons[0]}.")
