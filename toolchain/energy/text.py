"""Show an energy block as text: figures with their uncertainty, and the reasons for missing ones."""

from toolchain.base.amounts import counted
from toolchain.energy.record import NOT_REQUESTED, NOT_RUN, SENSOR
from toolchain.meters.sources import BOARD
from toolchain.records.energy import ComponentRecord, EnergyBlock

# Reason code -> its text.
REASONS = {
    NOT_REQUESTED: "it was not requested (--energy)",
    NOT_RUN: "nothing ran, because the device of the backend cannot be measured",
    "no_nvml_package": "nvidia-ml-py is not installed",
    "no_nvml_library": "this machine lacks an NVIDIA driver",
    "driver_not_loaded": "the NVIDIA driver is not loaded",
    "driver_mismatch": "the NVIDIA driver and its library have different versions: restart the machine",
    "driver_too_old": "the driver is too old to report it",
    "not_supported": "the hardware or driver does not report it",
    "no_permission": "this user may not read it",
    "gpu_lost": "the GPU was lost",
    "gpu_needs_reset": "the GPU needs a reset",
    "nvml_unknown": "NVML failed for an unknown reason",
    "reads_zero": "its sensor reads 0 W, which cannot be right",
    "nvml_closed": "the NVML session was closed",
    "server_elsewhere": "the server is on another machine: run `toolchain power` there",
    "no_device_used": "the backend ran on the processor",
    "process_not_seen": "the driver lists this process under another id, as in a container",
    "module_only": "only the power of a module with the GPU and other chips can be read",
    "no_device": "no GPU is visible",
    "ambiguous_index": "the GPUs differ; CUDA and NVML may order them differently: set CUDA_DEVICE_ORDER=PCI_BUS_ID",
    "mig_shared": "the GPU is divided into slices (MIG), and its readings cover all of them",
    "counter_stuck": "its energy counter does not increase",
    "counter_reset": "its counter was reset",
    "window_too_short": "the window was too short",
    "rapl_absent": "this machine lacks a RAPL counter for it, as do most virtual machines",
    "rapl_permission": "only root may read it (`toolchain doctor` says how to allow it)",
    "rapl_lost": "its RAPL counter became unreadable",
    "no_baseline": "idle power could not be measured",
    "baseline_drifted": "idle power changed by more than 5 % between before and after",
    "not_above_idle": "the energy is not above that of the idle machine",
}


def reason(code: str | None) -> str:
    """Return the text of a reason code; an unknown code is returned unchanged."""
    return REASONS.get(code or "", code or "unknown")


def joules(value: float | None) -> str:
    """Return an energy in J, mJ or uJ with three digits, or `n/a`."""
    if value is None:
        return "n/a"
    for unit, size in (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6)):
        if abs(value) >= size or unit == "uJ":
            return f"{value / size:.3g} {unit}" if abs(value) < 1000 * size else f"{value / size:,.0f} {unit}"
    raise AssertionError


def describe(block: EnergyBlock) -> list[str]:
    """Return an energy block as lines of text; the first has the joules per row, or says why there are none.

    The list is empty if energy was not requested.
    """
    if block["reason"] == NOT_REQUESTED:
        return []
    if block["status"] == "unavailable":
        return _unavailable(block)
    lines = [_headline(block), _each(block), *_components(block), _uncertainty(block), _net(block)]
    if block["carbon"]:
        carbon = block["carbon"]
        given = f"{carbon['intensity_g_per_kwh']:g} g/kWh and a PUE of {carbon['pue']:g}, as given"
        lines.append(f"  {1e6 * carbon['per_inference_g']:.3g} g of CO2 per million rows, at {given}")
    lines += [f"  batches of {one['batch_size']}: {_headline(one)}" for one in block.get("by_batch_size", [])]
    return lines + [f"  note: {flag}" for flag in block.get("flags", [])]


def _unavailable(block: EnergyBlock) -> list[str]:
    line = f"energy: not measured: {reason(block['reason'])}"
    parts = [f"{name}: {reason(part['reason'])}" for name, part in block["components"].items() if part["reason"]]
    shown = [
        f"  {name}: {joules(part['joules'])}, not used by this backend"
        for name, part in block["components"].items()
        if part["joules"] is not None
    ]
    return [f"{line} ({block['reason']})", *(f"  {part}" for part in parts), *shown]


def _headline(block: EnergyBlock) -> str:
    if block["status"] == "unavailable":
        return f"not measured: {reason(block['reason'])}"
    low, high = block["ci95"] or block["range"] or (None, None)
    interval = f"[{joules(low)}, {joules(high)}]" if block["ci95"] else f"(from {joules(low)} to {joules(high)})"
    mode = f"at {rate:g} rows/s" if (rate := block.get("rate_per_s")) else "at full load"
    part = " (measured components only)" if block["status"] == "partial" else ""
    return (
        f"energy: {joules(block['per_inference_j'])} per row {interval} {mode}{part}; "
        f"{joules(block['total_j'])} in {block['window_s'] or 0:.1f} s, mean {block['mean_power_w'] or 0:.1f} W"
    )


def _each(block: EnergyBlock) -> str:
    figures = {
        "real token": block["per_token_j"],
        "position (padding included)": block["per_slot_j"],
        "correct row": block["per_correct_j"],
    }
    parts = [f"{joules(value)} per {name}" for name, value in figures.items() if value is not None]
    return f"  {', '.join(parts)}; energy-delay product {1e6 * (block['energy_delay_product_js'] or 0):.3g} uJ s"


def _components(block: EnergyBlock) -> list[str]:
    lines = []
    for name, one in block["components"].items():
        if one["joules"] is None:
            lines.append(f"  {name}: n/a, {reason(one['reason'])} ({one['reason']})")
        else:
            figures = f"{joules(one['joules'])}, mean {one['mean_power_w']:.1f} W"
            lines.append(f"  {name}: {figures} ({', '.join(_how(one))})")
    return lines


def _how(one: ComponentRecord) -> list[str]:
    """Return how a component was measured and, if it is not part of the total, why."""
    parts: list[str] = [one["method"]]
    if tick_ms := one.get("tick_ms"):
        parts.append(f"ticks of {tick_ms:.0f} ms")
    if ratio := one.get("counter_to_integral"):
        parts.append(f"{ratio:.3f} times the integrated power")
    if one["detail"]:
        parts.append(one["detail"])
    if not one["counted"]:
        whole = one.get("part_of")
        parts.append(f"part of {whole}" if whole else "not used by this backend, not in the total")
    return parts


def _uncertainty(block: EnergyBlock) -> str:
    dropped = block.get("windows_dropped", 0)
    windows = len(block["windows"]) - dropped
    shown = counted(windows, "window")
    spread = f"95 % over {shown}" if block["ci95"] else f"{shown}, too few for an interval"
    board = block["components"][BOARD]
    sensor = (
        f"; in addition, a board's sensor is off by about {SENSOR:.0%}" if board["counted"] and board["joules"] else ""
    )
    return f"  {spread}{f', {dropped} dropped' if dropped else ''}{sensor}"


def _net(block: EnergyBlock) -> str:
    net = block["net"]
    if net is None or net["per_inference_j"] is None:
        return f"  net of idle: n/a, {reason(net['reason'] if net else None)}"
    return f"  net of idle power, model loaded ({net['idle_power_w']:.1f} W): {joules(net['per_inference_j'])} per row"
