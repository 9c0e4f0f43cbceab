"""Acceptance checks of energy: the energy counter agrees with the power, and the energy of engines is plausible."""

from toolchain.accept.bench import Bench, Check, Skip
from toolchain.energy.compare import compare_energy
from toolchain.energy.components import DISAGREE
from toolchain.energy.text import describe, reason
from toolchain.errors import GateError, MachineError
from toolchain.meters.energy import open_meter
from toolchain.meters.gpu_state import describe as describe_gpu
from toolchain.meters.sources import BOARD, COUNTER
from toolchain.workflow import evaluate

# A factor. If the mean power is more than this many times the GPU's power limit, the sensor is wrong.
OVER_CAP = 1.1


def _counter(bench: Bench) -> str:
    """Compare the GPU's energy counter with its power, integrated over one measurement window without load."""
    with open_meter(bench.machine.device) as meter:
        if BOARD not in meter.components:
            raise Skip(reason(meter.missing[BOARD][0]))
        window = meter.window(bench.recipe.energy_window)
        readings = next(one for key, one in meter.readings.items() if key[0] == BOARD)
    joules, integral = window.component_j(BOARD), sum(window.integral_j.values())
    if joules is None:
        raise MachineError(f"energy of {bench.machine.gpu}: {reason(window.reason(BOARD))}. See `toolchain doctor`.")
    power = f"mean board power {joules / window.seconds:.1f} W"
    if readings.source.method != COUNTER:
        return f"{power}, from power readings, because the energy counter cannot be used"
    ratio = joules / integral if integral else None
    if ratio is not None and abs(ratio - 1) > DISAGREE:
        raise GateError(
            f"the energy counter gives {ratio:.2f} times the energy integrated from the power. "
            "Do not use energy results of this GPU."
        )
    tick_ms = 1e3 * (readings.tick_s or 0)
    return f"{power}, counter updated every {tick_ms:.0f} ms, counter / integrated power {ratio and round(ratio, 3)}"


def _energy(name: str) -> Check:
    def check(bench: Bench) -> str:
        place, recipe = bench.bundle(name), bench.recipe
        with open_meter(bench.machine.device) as meter:
            if BOARD not in meter.components:
                raise Skip(reason(meter.missing[BOARD][0]))
            cap_w = [describe_gpu(gpu)["power_limit_w"] for gpu in meter.inventory.gpus]
        options = {
            "energy_window": recipe.energy_window,
            "energy_windows": recipe.energy_windows,
            "energy_warmup": recipe.energy_warmup,
        }
        result = evaluate({"backend": "trt", "limit": recipe.limit, "energy": True, **options}, bundle=place)
        bench.results[:] = [one for one in bench.results if one["file"] != result["file"]] + [result]
        energy = result["energy"]
        board = energy["components"][BOARD]
        if energy["status"] == "unavailable" or board["joules"] is None:
            raise MachineError(f"{result['file']}: {'; '.join(describe(energy))}.")
        if None not in cap_w and board["mean_power_w"] > OVER_CAP * sum(filter(None, cap_w)):
            cap = f"{sum(filter(None, cap_w)):.0f}"
            raise GateError(
                f"the mean board power is {board['mean_power_w']:.0f} W, above the limit of {cap} W, so the sensor is "
                "wrong. Do not use energy results of this GPU."
            )
        return describe(energy)[0].removeprefix("energy: ")

    return check


def _comparison(bench: Bench) -> str:
    """Compare the energy of the INT8 engine with that of the FP16 engine, measured in blocks of random order."""
    with open_meter(bench.machine.device) as meter:
        if BOARD not in meter.components:
            raise Skip(reason(meter.missing[BOARD][0]))
    options = {name: getattr(bench.recipe, name) for name in ("energy_window", "energy_windows", "energy_warmup")}
    places = [bench.bundle("fp16"), bench.bundle("int8")]
    (found,) = compare_energy(places, ["trt"], {**options, "energy": True}, log=lambda line: None)["comparisons"]
    if found["ratio"] is None:
        raise MachineError(f"energy of int8 and fp16: {reason(found['reason'])}. See `toolchain doctor`.")
    seen = (
        f"smallest detectable difference {found['mdd_percent']:.1f} %"
        if found["mdd_percent"] is not None
        else "measured in one block"
    )
    return f"INT8 takes {found['ratio']:.3f} times the energy of FP16: {found['verdict']} ({seen})"


# Name -> check, in order.
CHECKS: dict[str, Check] = {
    "energy counter": _counter,
    "energy fp16": _energy("fp16"),
    "energy int8": _energy("int8"),
    "energy int8 to fp16": _comparison,
}
