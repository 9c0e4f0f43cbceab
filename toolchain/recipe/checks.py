"""The checks of a recipe that the declaration of one option cannot express, such as options that exclude each other."""

import math
from typing import TYPE_CHECKING

from toolchain.errors import UsageError, meant
from toolchain.recipe.groups import MLPERF
from toolchain.recipe.tables import ATTENTIONS, METHODS, SCENARIOS, capturing, is_method, is_remote

if TYPE_CHECKING:
    from toolchain.recipe import Recipe


def check_together(recipe: "Recipe") -> None:
    """Raise an error if values of a recipe are out of range, or options were given that cannot be used together.

    Raises:
        UsageError: the message names the option and the value.
    """
    if not 0 < recipe.atol < math.inf:
        raise UsageError(f"--atol {recipe.atol}: this is not a number above 0. Give a tolerance such as 1e-4.")
    if recipe.reuse is not None and recipe.force:
        raise UsageError("--reuse: it cannot be used with --force, which exports again. Leave one of them out.")
    _calibration(recipe)
    _engine(recipe)
    _gate(recipe)
    _energy(recipe)
    _scenario(recipe)
    _attention(recipe)
    _server(recipe)
    _columns(recipe)
    _halves(recipe)


def _gate(recipe: "Recipe") -> None:
    if recipe.max_drop is not None and not 0 <= recipe.max_drop < math.inf:
        raise UsageError(f"--max-drop {recipe.max_drop}: this is not a number of at least 0. Give points such as 0.5.")
    if not 0.5 < recipe.confidence < 1:
        raise UsageError(
            f"--confidence {recipe.confidence}: the level must be above 0.5 and below 1. Give a value such as 0.95."
        )
    if recipe.strict and recipe.max_drop is None:
        raise UsageError("--strict: it needs a gate. Add --max-drop POINTS, or leave --strict out.")


def _attention(recipe: "Recipe") -> None:
    if recipe.attention in ATTENTIONS and recipe.backend not in (None, "torch"):
        raise UsageError(
            f"--attention {recipe.attention}: it cannot be used with --backend {recipe.backend}. "
            "Choose --backend torch."
        )


def _columns(recipe: "Recipe") -> None:
    if recipe.task == "custom" and not (recipe.text_column and recipe.label_column):
        raise UsageError(
            "--task custom: the columns of the table must be named. Give --text-column A[,B] and --label-column L."
        )
    if recipe.validation_share is not None and not 0 < recipe.validation_share < 1:
        raise UsageError(
            f"--validation-share {recipe.validation_share:g}: the fraction must be above 0 and below 1. "
            "Give a value such as 0.2."
        )
    if recipe.validation_share is not None and recipe.split_column:
        raise UsageError(
            "--validation-share: it cannot be used with --split-column, which already names each row's split. "
            "Leave one of them out."
        )


def _calibration(recipe: "Recipe") -> None:
    if recipe.range_method != "auto" and not is_method(recipe.range_method):
        known = ", ".join([*METHODS, "auto", "percentile-P with P above 50 and up to 100"])
        hint = meant(recipe.range_method, [*METHODS, "auto"])
        raise UsageError(f"--calib-method {recipe.calib_method}: unknown.{hint} Choose one of {known}.")
    if recipe.smooth is not None and not 0 <= recipe.smooth <= 1:
        raise UsageError(f"--smooth {recipe.smooth}: alpha must be from 0 to 1. Give a value such as 0.5.")


def _engine(recipe: "Recipe") -> None:
    if recipe.optimization_level is not None and recipe.optimization_level > 5:
        raise UsageError(f"--optimization-level {recipe.optimization_level}: the highest level is 5. Give 0 to 5.")
    if recipe.calibrator == "tensorrt" and recipe.attention != "plugin":
        raise UsageError(
            "--calibrator tensorrt: TensorRT ignores its calibrator if it fuses attention itself, and would compute in "
            "floating point. Add --attention plugin, or leave --calibrator out."
        )
    if recipe.version_compatible and recipe.attention == "plugin":
        raise UsageError(
            "--version-compatible: it cannot be used with --attention plugin, because later TensorRT versions may lack "
            "the plugins. Leave one of them out."
        )
    if recipe.gives_cache and recipe.calibrator != "tensorrt":
        raise UsageError(
            f"--calibration {recipe.calibration}: a TensorRT cache is used only with --calibrator tensorrt and "
            "--attention plugin. Add both options, or give a calibration.json."
        )
    if recipe.compile and recipe.backend not in (None, "torch"):
        raise UsageError(f"--compile: it cannot be used with --backend {recipe.backend}. Choose --backend torch.")
    if recipe.cuda_graphs and recipe.backend not in (None, *capturing()):
        raise UsageError(
            f"--cuda-graphs: it cannot be used with --backend {recipe.backend}. Choose one of {', '.join(capturing())}."
        )


def _server(recipe: "Recipe") -> None:
    remote = is_remote(recipe.backend)
    if remote and not recipe.url:
        raise UsageError(
            f"--backend {recipe.backend}: this backend needs the address of a server. Give --url http://HOST:PORT."
        )
    if not remote and (recipe.url or recipe.token_file):
        raise UsageError(
            "--url and --token-file: they can only be used with a server. Add --backend triton or --backend service, "
            "or leave them out."
        )
    if remote and recipe.wants_energy:
        raise UsageError(
            f"--energy: it cannot be used with --backend {recipe.backend}, because the energy is spent on the server's "
            "machine. Read /metrics of the server, or run `toolchain power` on that machine."
        )


def _energy(recipe: "Recipe") -> None:
    least = {"energy_window": 5, "energy_warmup": 0, "rate": 0, "carbon_intensity": 0, "pue": 1}
    for name, low in least.items():
        value, flag = getattr(recipe, name), f"--{name.replace('_', '-')}"
        if value is not None and not (low <= value < math.inf and (value or name != "rate")):
            lowest = "a number above 0" if name == "rate" else f"{low} or more"
            raise UsageError(f"{flag} {value:g}: too small or not a number. Give {lowest}.")
    _ = recipe.batch_sizes
    if not recipe.wants_energy and (recipe.rate is not None or recipe.batch_sizes):
        raise UsageError(
            "--rate and --energy-batch-sizes: they can only be used with --energy. Add it, or leave them out."
        )
    if recipe.rate is not None and recipe.batch_sizes:
        raise UsageError(
            "--rate: it cannot be used with --energy-batch-sizes, because requests at a fixed rate come one by one. "
            "Leave one of them out."
        )


def _halves(recipe: "Recipe") -> None:
    if not recipe.halves:
        return
    if recipe.backend not in (None, "ort") or recipe.device not in ("auto", "cpu"):
        raise UsageError(
            "--halves: it can only be used with --backend ort on the CPU, because a GPU computes in float16 itself. "
            "Leave it out."
        )
    if recipe.wants_energy or recipe.scenario:
        option = "--scenario" if recipe.scenario else "--energy"
        raise UsageError(
            f"{option}: it cannot be used with --halves, which only emulates float16 on the CPU. Leave one of them out."
        )


def _scenario(recipe: "Recipe") -> None:
    given = {name: getattr(recipe, name) for name in MLPERF[1:] if getattr(recipe, name) is not None}
    users = {"min_duration": SCENARIOS, "target_qps": ("offline", "server"), "target_latency_ms": ("server",)}
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if recipe.scenario not in users[name]:
            raise UsageError(
                f"{flag} {value:g}: it can only be used with --scenario {' or '.join(users[name])}. "
                "Add the scenario, or leave the option out."
            )
        least = 1 if name == "min_duration" else 0.001
        if not least <= value < math.inf:
            raise UsageError(f"{flag} {value:g}: too small or not a number. Give {least} or more.")
    if recipe.scenario == "server" and recipe.target_qps is None:
        raise UsageError(
            "--scenario server: the rate of the requests is missing. "
            "Give --target-qps R, below the rows/s that eval shows."
        )
