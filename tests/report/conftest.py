"""Results as `eval` writes them: without energy, with energy, and of a regression."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from toolchain.energy.load import Work
from toolchain.energy.protocol import Protocol, Run, Trial
from toolchain.energy.record import block, unavailable
from toolchain.meters.energy import Window
from toolchain.meters.readings import Readings
from toolchain.meters.sources import BOARD, COUNTER, Inventory, Source

RESULT: dict[str, Any] = {
    "schema": 1,
    "task": "sst2",
    "split": "validation",
    "n": 872,
    "model": "org/some-model",
    "backend": "ort",
    "device": "cpu",
    "precision": "int8",
    "variant": "int8.cpu",
    "artefact": {"file": "model.int8.cpu.onnx", "sha256": "9122949eb41af1ef48b8f1f25b46feb8"},
    "data_sha256": "a955ce1792e677454b6b5c061feedce0",
    "primary": "accuracy",
    "metrics": {"accuracy": 0.8812, "f1": 0.5},
    "metrics_ci95": {"accuracy": [0.86, 0.9], "f1": [0.4, 0.6]},
    "agreement": {"reference": "torch-fp32", "label_agreement": 0.99136, "max_abs_logit_difference": 0.3125},
    "latency_ms": {"mean": 1.5, "p50": 1.25, "p90": 2.0, "p95": 2.0, "p99": 3.875, "batch_size": 1},
    "throughput_per_s": 1234.5,
    "tokens": {
        "real": 900,
        "slots": 1000,
        "padding_efficiency": 0.9,
        "batch_slots": 512,
        "lengths": [[5, 40], [9, 60]],
    },
    "peak_memory_mb": {"host": 256.0, "device": None},
    "energy": unavailable("not_requested", device="cpu"),
    "environment": {"python": "3.12", "gpu": None},
    "seed": 0,
    "max_length": 128,
    "command": "toolchain eval bundle",
    "created": "2026-01-01T00:00:00+00:00",
    "file": "results/ort.json",
}


@pytest.fixture
def result() -> dict[str, Any]:
    return copy.deepcopy(RESULT)


@pytest.fixture
def regression(result: dict[str, Any]) -> dict[str, Any]:
    """A result of a regression, without labels, whose memory could not be read."""
    result |= {"primary": "pearson", "metrics": {"pearson": 0.9}, "metrics_ci95": {"pearson": [0.8, 0.95]}}
    result["agreement"]["label_agreement"] = None
    result["peak_memory_mb"]["host"] = None
    return result


@pytest.fixture
def reference() -> dict[str, Any]:
    """A result of the FP32 checkpoint, which is slower."""
    return copy.deepcopy(RESULT) | {
        "backend": "torch",
        "precision": "fp32",
        "variant": "fp32",
        "throughput_per_s": 411.5,
        "latency_ms": {"mean": 5.5, "p50": 5.0, "p90": 6.0, "p95": 7.0, "p99": 8.0, "batch_size": 1},
        "metrics": {"accuracy": 0.8851, "f1": 0.5},
        "file": "results/torch.json",
    }


@pytest.fixture
def measured(result: dict[str, Any]) -> dict[str, Any]:
    """A result on a GPU: five windows of its board's counter, about 0.3 J a row, without processor energy."""

    missing = dict.fromkeys(("cpu_package", "cpu_dram"), ("rapl_absent", "")) | {"gpu_memory": ("no_such", "")}
    counter = Readings(Source(BOARD, "GPU-1", COUNTER, lambda: 0.0), tick_s=0.1)
    meter: Any = SimpleNamespace(
        tick_s=0.1,
        inventory=Inventory(),
        states={},
        missing=missing,
        readings={(BOARD, "GPU-1"): counter},
        components={BOARD},
    )
    trials = [
        Trial(
            Window(0, 6, {(BOARD, "GPU-1"): joules}, {}, {"GPU-1": joules}, {"GPU-1": 70.0}, {}),
            Work(calls=100, rows=1000, tokens=20_000, slots=25_000),
        )
        for joules in (300.0, 310.0, 290.0, 305.0, 295.0)
    ]
    found = block(Run(trials), meter, Protocol(), device="cuda:0")
    return result | {
        "energy": found,
        "backend": "trt",
        "device": "cuda:0",
        "variant": "fp16",
        "file": "results/trt.json",
    }


@pytest.fixture
def tuned() -> dict[str, Any]:
    """A record of `tune` with three GEMMs, one of which was not measured alone."""
    products = [
        {"name": f"bert.layer.{at}.q", "effect": effect, "snr_db": 30.0, "macs": 0.3}
        for at, effect in enumerate((0.5, 0.1, None))
    ]
    return {
        "bundle": "b",
        "products": products,
        "sets": [],
        "keep": ["bert.layer.0.q"],
        "file": "results/tune/tune.json",
    }


@pytest.fixture
def power() -> dict[str, Any]:
    """A record of `toolchain power` with a GPU's board and without a processor."""
    parts = {"gpu_board": {"joules": 12.0, "reason": None}, "cpu_package": {"joules": None, "reason": "rapl_absent"}}
    samples = {"time_s": [0.1, 0.2, 0.3], "gpu_board_w": [40.0, 41.5, 39.0], "gpu_board_j": [4.0, 8.0, 12.0]}
    return {
        "schema": 1,
        "command": ["sleep", "<b>1</b>"],
        "seconds": 0.3,
        "status": "partial",
        "components": parts,
        "total_j": 12.0,
        "mean_power_w": 40.0,
        "peak_power_w": 41.5,
        "samples": samples,
        "created": "2026-01-02T00:00:00+00:00",
        "file": "power.json",
    }
