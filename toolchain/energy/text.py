"""An energy block in words: the figures with their uncertainty, what is missing and why."""

from toolchain.energy.block import NOT_REQUESTED, NOT_RUN, SENSOR
from toolchain.energy.component import Block
from toolchain.meters.sources import BOARD

REASONS = {
    NOT_REQUESTED: "it was not asked for (--energy)",
    NOT_RUN: "nothing was run, as the backend's own device cannot be measured",
    "no_nvml_package": "nvidia-ml-py is not installed",
    "no_nvml_library": "this machine has no NVIDIA driver",
    "driver_not_loaded": "NVIDIA's driver is not loaded",
    "driver_mismatch": "NVIDIA's driver and its library differ: restart the machine",
    "driver_too_old": "the driver is too old to tell",
    "not_supported": "the hardware or driver does not tell",
    "no_permission": "this user may not read it",
    "gpu_lost": "the GPU was lost",
    "gpu_needs_reset": "the GPU needs a reset",
    "nvml_unknown": "NVML failed without saying why",
    "reads_zero": "it reads 0 W, which is no measurement",
    "nvml_closed": "NVML was closed",
    "no_device_used": "it ran on the processor",
    "process_not_seen": "the driver does not know this process by its number, as in a container",
    "module_only": "only the power of a module with more than the GPU can be read",
    "no_device": "no GPU can be seen",
    "ambiguous_index": "the GPUs are unlike, and a number does not say which: set CUDA_DEVICE_ORDER=PCI_BUS_ID",
    "mig_shared": "the GPU is cut into slices (MIG), and its readings are of all of them",
    "counter_stuck": "its counter does not move",
    "counter_reset": "its counter was reset",
    "window_too_short": "the window was too short",
    "rapl_absent": "this machine shows no RAPL counter for it, as most virtual machines",
    "rapl_permission": "only root may read it (see toolchain doctor)",
    "rapl_lost": "its RAPL counter cannot be read any more",
    "no_baseline": "idle power could not be measured",
    "baseline_drifted": "idle power changed by more than 5 % between before and after",
    "not_above_idle": "it is not above idle",
}
"""Reason code -> what a person reads."""


def reason(code: str | None) -> str:
    """Return a reason code in words; an unknown one as it is."""
    return REASONS.get(code or "", code or "unknown")


def joules(value: float | None) -> str:
    """Return an energy with a unit that suits it, or `n/a`."""
    if value is None:
        return "n/a"
    for unit, size in (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)):
        if abs(value) >= size or unit == "uJ":
            return f"{value / size:.3g} {unit}" if abs(value) < 1000 * size else f"{value / size:,.0f} {unit}"
    raise AssertionError


def describe(block: Block) -> list[str]:
    """Return lines for a person, the first of which says whether there is a figure at all."""
    if block["status"] == "unavailable":
        return _unavailable(block)
    lines = [_headline(block), _each(block), *_parts(block), _uncertainty(block), _net(block)]
    if block["carbon"]:
        carbon = block["carbon"]
        given = f"{carbon['intensity_g_per_kwh']:g} g/kWh and a PUE of {carbon['pue']:g}, as given"
        lines.append(f"  {1e6 * carbon['per_inference_g']:.3g} g of CO2 per million rows, at {given}")
    lines += [f"  batches of {one['batch_size']}: {_headline(one)}" for one in block.get("by_batch_size", [])]
    return lines + [f"  note: {flag}" for flag in block["flags"]]


def _unavailable(block: Block) -> list[str]:
    line = f"energy: not measured: {reason(block['reason'])}"
    if block["reason"] == NOT_REQUESTED:
        return [line]
    parts = [f"{name}: {reason(part['reason'])}" for name, part in block["components"].items() if part["reason"]]
    shown = [
        f"  {name}: {joules(part['joules'])}, not used by this backend"
        for name, part in block["components"].items()
        if part["joules"] is not None
    ]
    return [f"{line} ({block['reason']})", *(f"  {part}" for part in parts), *shown]


def _headline(block: Block) -> str:
    if block["status"] == "unavailable":
        return f"not measured: {reason(block['reason'])}"
    low, high = block["ci95"] or block["range"]
    interval = f"[{joules(low)}, {joules(high)}]" if block["ci95"] else f"(from {joules(low)} to {joules(high)})"
    mode = f"at {block['rate_per_s']:g} rows/s" if block["rate_per_s"] else "at full load"
    part = " of what could be measured" if block["status"] == "partial" else ""
    return (
        f"energy: {joules(block['per_inference_j'])} a row {interval} {mode}{part}; "
        f"{joules(block['total_j'])} in {block['window_s']:.1f} s, {block['mean_power_w']:.1f} W"
    )


def _each(block: Block) -> str:
    figures = {"real token": "per_token_j", "slot": "per_slot_j", "correct row": "per_correct_j"}
    parts = [f"{joules(block[key])} a {name}" for name, key in figures.items() if block[key] is not None]
    return f"  {', '.join(parts)}; energy-delay product {1e6 * block['energy_delay_product_js']:.3g} uJ s"


def _parts(block: Block) -> list[str]:
    lines = []
    for name, part in block["components"].items():
        if part["joules"] is None:
            lines.append(f"  {name}: n/a, {reason(part['reason'])} ({part['reason']})")
            continue
        extra = [part["method"]]
        if part["tick_ms"]:
            extra.append(f"ticks of {part['tick_ms']:.0f} ms")
        if ratio := part.get("counter_to_integral"):
            extra.append(f"{ratio:.3f} of integrated power")
        if part["detail"]:
            extra.append(part["detail"])
        if not part["counted"]:
            extra.append(
                f"part of {part['part_of']}" if part["part_of"] else "not used by this backend, not in the total"
            )
        lines.append(f"  {name}: {joules(part['joules'])}, {part['mean_power_w']:.1f} W ({', '.join(extra)})")
    return lines


def _uncertainty(block: Block) -> str:
    windows = len(block["windows"]) - block["windows_dropped"]
    counted = "1 window" if windows == 1 else f"{windows} windows"
    spread = f"95 % over {counted}" if block["ci95"] else f"{counted}, too few for an interval"
    dropped = f", {block['windows_dropped']} dropped" if block["windows_dropped"] else ""
    board = block["components"][BOARD]
    sensor = f"; a board's sensor is off by about {SENSOR:.0%} besides" if board["counted"] and board["joules"] else ""
    return f"  {spread}{dropped}{sensor}"


def _net(block: Block) -> str:
    net = block["net"]
    if net["per_inference_j"] is None:
        return f"  net of idle: n/a, {reason(net['reason'])}"
    return f"  net of hot idle ({net['idle_power_w']:.1f} W): {joules(net['per_inference_j'])} a row"
