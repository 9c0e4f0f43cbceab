import json
from typing import Any

import pytest

from toolchain.meters.energy import unavailable

# The energy block of a result, as the design has it.
DESIGN = json.loads(
    """{"status": "", "reason": null, "components": {"gpu_board": {}, "cpu_package": {}, "cpu_dram": {}},
    "windows": [], "window_s": null, "inferences": null, "total_j": null, "per_inference_j": null,
    "per_token_j": null, "per_correct_j": null, "mean_power_w": null, "ci95": null}"""
)
COMPONENT = {"joules", "method", "reason", "counted", "devices"}


def numbers(value: Any) -> list[float]:
    """Return every number below `value`."""
    if isinstance(value, dict):
        return [number for entry in value.values() for number in numbers(entry)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def test_the_block_has_the_keys_of_the_design() -> None:
    found = unavailable("not_requested", device="cpu")
    assert found.keys() == DESIGN.keys()
    assert found["components"].keys() == DESIGN["components"].keys()
    assert all(component.keys() == COMPONENT for component in found["components"].values())


def test_what_was_not_measured_is_null_with_a_reason_and_never_0() -> None:
    found = unavailable("no_nvml_library", device="cuda:0")
    assert numbers(found) == []
    assert (found["status"], found["reason"]) == ("unavailable", "no_nvml_library")
    assert {component["reason"] for component in found["components"].values()} == {"no_nvml_library"}


@pytest.mark.parametrize(("device", "counted"), [("cpu", False), ("cuda:0", True)])
def test_the_board_counts_where_the_device_is_a_gpu(device: str, counted: bool) -> None:
    assert unavailable("x", device=device)["components"]["gpu_board"]["counted"] is counted


def test_blocks_share_nothing() -> None:
    one, other = (unavailable("x", device="cpu") for _ in range(2))
    one["windows"].append(1)
    one["components"]["gpu_board"]["devices"].append(1)
    assert other == unavailable("x", device="cpu")
