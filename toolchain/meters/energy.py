"""Energy: the block that every result has. Nothing measures it yet, and nothing is guessed."""

from typing import Any

COMPONENTS = ("gpu_board", "cpu_package", "cpu_dram")
FIGURES = ("window_s", "inferences", "total_j", "per_inference_j", "per_token_j", "per_correct_j",
           "mean_power_w", "ci95")  # fmt: skip


def unavailable(reason: str, *, device: str) -> dict[str, Any]:
    """Return the energy block of a run that measured none; `reason` is a code such as not_requested."""
    used = {"gpu_board": device != "cpu", "cpu_package": True, "cpu_dram": True}
    components: dict[str, Any] = {
        name: {"joules": None, "method": "unavailable", "reason": reason, "counted": used[name], "devices": []}
        for name in COMPONENTS
    }
    return {"status": "unavailable", "reason": reason, "components": components, "windows": [],
            **dict.fromkeys(FIGURES)}  # fmt: skip
