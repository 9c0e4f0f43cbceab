"""The rules that several keys of a recipe must meet together, and those of a single one that no table can state."""

import math
from typing import TYPE_CHECKING

from toolchain.errors import UsageError, meant
from toolchain.recipe.groups import MLPERF
from toolchain.recipe.tables import ATTENTIONS, METHODS, SCENARIOS, capturing, is_method, is_remote

if TYPE_CHECKING:
    from toolchain.recipe import Recipe


def check_together(recipe: "Recipe") -> None:
    """Refuse values that are out of range or exclude each other.

    Raises:
        UsageError: naming the option and the value.
    """
    if not 0 < recipe.atol < math.inf:
        raise UsageError(f"--atol {recipe.atol}: not a number above 0. Give a tolerance such as 1e-4.")
    if recipe.reuse is not None and recipe.force:
        raise UsageError("--reuse: cannot be used with --force, which exports again. Leave one of them out.")
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
        raise UsageError(f"--max-drop {recipe.max_drop}: not a number from 0. Give points such as 0.5.")
    if not 0.5 < recipe.confidence < 1:
        raise UsageError(f"--confidence {recipe.confidence}: not above 0.5 and below 1. Give a share such as 0.95.")
    if recipe.strict and recipe.max_drop is None:
        raise UsageError("--strict: there is no gate. Give --max-drop POINTS.")


def _attention(recipe: "Recipe") -> None:
    if recipe.attention in ATTENTIONS and recipe.backend not in (None, "torch"):
        raise UsageError(
            f"--attention {recipe.attention}: cannot be used with --backend {recipe.backend}. Choose --backend torch."
        )


def _columns(recipe: "Recipe") -> None:
    if recipe.task == "custom" and not (recipe.text_column and recipe.label_column):
        raise UsageError("--task custom: needs --text-column A[,B] and --label-column L. Name the columns.")
    if recipe.validation_share is not None and not 0 < recipe.validation_share < 1:
        raise UsageError(f"--validation-share {recipe.validation_share:g}: not between 0 and 1. Give 0.2 or so.")
    if recipe.validation_share is not None and recipe.split_column:
        raise UsageError("--validation-share: not with --split-column, which has each row's split. Leave one out.")


def _calibration(recipe: "Recipe") -> None:
    if recipe.range_method != "auto" and not is_method(recipe.range_method):
        known = ", ".join([*METHODS, "auto", "percentile-P with P above 50 and up to 100"])
        hint = meant(recipe.range_method, [*METHODS, "auto"])
        raise UsageError(f"--calib-method {recipe.calib_method}: unknown.{hint} Choose one of {known}.")
    if recipe.smooth is not None and not 0 <= recipe.smooth <= 1:
        raise UsageError(f"--smooth {recipe.smooth}: not from 0 to 1. Give an alpha such as 0.5.")


def _engine(recipe: "Recipe") -> None:
    if recipe.optimization_level is not None and recipe.optimization_level > 5:
        raise UsageError(f"--optimization-level {recipe.optimization_level}: above 5. Give 0 to 5.")
    if recipe.calibrator == "tensorrt" and recipe.attention != "plugin":
        raise UsageError(
            "--calibrator tensorrt: TensorRT ignores it where it fuses attention itself, and would "
            "run in floating point. Add --attention plugin, or leave it out for ranges of our own."
        )
    if recipe.version_compatible and recipe.attention == "plugin":
        raise UsageError(
            "--version-compatible: not with --attention plugin: later TensorRT versions need not have its plugins. "
            "Leave one of them out."
        )
    if recipe.gives_cache and recipe.calibrator != "tensorrt":
        raise UsageError(
            f"--calibration {recipe.calibration}: a TensorRT cache goes with --calibrator tensorrt and "
            "--attention plugin. Add them, or give a calibration.json."
        )
    if recipe.compile and recipe.backend not in (None, "torch"):
        raise UsageError(f"--compile: cannot be used with --backend {recipe.backend}. Choose --backend torch.")
    if recipe.cuda_graphs and recipe.backend not in (None, *capturing()):
        raise UsageError(
            f"--cuda-graphs: cannot be used with --backend {recipe.backend}. Choose {', '.join(capturing())}."
        )


def _server(recipe: "Recipe") -> None:
    remote = is_remote(recipe.backend)
    if remote and not recipe.url:
        raise UsageError(f"--backend {recipe.backend}: needs a server. Give --url http://HOST:PORT.")
    if not remote and (recipe.url or recipe.token_file):
        raise UsageError("--url, --token-file: only with --backend triton or service. Add it, or leave them out.")
    if remote and recipe.wants_energy:
        raise UsageError(
            f"--energy: cannot be used with --backend {recipe.backend}: joules are spent where the server runs. "
            "Look at its /metrics, or run `toolchain power` there."
        )


def _energy(recipe: "Recipe") -> None:
    least = {"energy_window": 5, "energy_warmup": 0, "rate": 0, "carbon_intensity": 0, "pue": 1}
    for name, low in least.items():
        value, flag = getattr(recipe, name), f"--{name.replace('_', '-')}"
        if value is not None and not (low <= value < math.inf and (value or name != "rate")):
            raise UsageError(f"{flag} {value:g}: too small or not a number. Give {low} or more.")
    _ = recipe.batch_sizes
    if not recipe.wants_energy and (recipe.rate is not None or recipe.batch_sizes):
        raise UsageError("--rate and --energy-batch-sizes: only with --energy. Add it, or leave them out.")
    if recipe.rate is not None and recipe.batch_sizes:
        raise UsageError("--rate: not with --energy-batch-sizes: requests at a fixed rate come one by one.")


def _halves(recipe: "Recipe") -> None:
    if not recipe.halves:
        return
    if recipe.backend not in (None, "ort") or recipe.device not in ("auto", "cpu"):
        raise UsageError("--halves: only with --backend ort on the CPU; a GPU computes float16 itrecipe. Leave it out.")
    if recipe.wants_energy or recipe.scenario:
        option = "--scenario" if recipe.scenario else "--energy"
        raise UsageError(f"{option}: not with --halves, which emulates float16 on the CPU. Leave one of them out.")


def _scenario(recipe: "Recipe") -> None:
    given = {name: getattr(recipe, name) for name in MLPERF[1:] if getattr(recipe, name) is not None}
    users = {"min_duration": SCENARIOS, "target_qps": ("offline", "server"), "target_latency_ms": ("server",)}
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if recipe.scenario not in users[name]:
            raise UsageError(f"{flag} {value:g}: only with --scenario {' or '.join(users[name])}. Add it.")
        least = 1 if name == "min_duration" else 0.001
        if not least <= value < math.inf:
            raise UsageError(f"{flag} {value:g}: too small or not a number. Give {least} or more.")
    if recipe.scenario == "server" and recipe.target_qps is None:
        raise UsageError("--scenario server: no rate. Give --target-qps R, below the rows/s that eval shows.")
