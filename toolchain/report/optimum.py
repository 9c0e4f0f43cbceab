"""Results under the names of optimum-benchmark 0.6.0, for those who read its files.

Its `benchmark.json` has `config` and `report`; of an encoder the report's targets are `load_model`, `first_forward`
and `forward`, each with memory in MB, latency in s, throughput in samples/s, energy in kWh a forward pass and
efficiency in samples/kWh (its trackers/*.py). What we do not measure, or not so, is null. Its forward pass is a batch
of one row here, so that energy is a row's; throughput is that of the best batch, as in our own results.
"""

import json
from typing import Any

from toolchain.energy.block import JOULES_PER_KWH
from toolchain.energy.component import Block
from toolchain.evaluation.results import Result
from toolchain.meters.sources import BOARD, DRAM, PACKAGE

VERSION = "0.6.0"

MEASUREMENTS = ("memory", "latency", "throughput", "energy", "efficiency")
LATENCY = ("mean", "p50", "p90", "p95", "p99")
BACKENDS = {"torch": "pytorch", "ort": "onnxruntime", "ort-trt": "onnxruntime"}
"""Its names of ours; it has none for TensorRT by itself."""


def optimum_benchmark(results: list[Result]) -> str:
    """Return a JSON list with a benchmark for each result."""
    return json.dumps([benchmark(result) for result in results], indent=2, ensure_ascii=False) + "\n"


def benchmark(result: Result) -> dict[str, Any]:
    """Return one result as a benchmark: its config, and its report with null for what was not measured."""
    nothing = dict.fromkeys(MEASUREMENTS)
    forward = {
        "memory": _memory(result),
        "latency": _latency(result),
        "throughput": {"unit": "samples/s", "value": result["throughput_per_s"]},
        "energy": _energy(result["energy"]),
        "efficiency": _efficiency(result["energy"]),
    }
    return {
        "config": _config(result),
        "report": {"load_model": nothing, "first_forward": nothing, "forward": forward},
    }


def _config(result: Result) -> dict[str, Any]:
    device = result["device"].partition(":")
    return {
        "name": f"{result['task']}-{result['backend']}-{result['variant']}",
        "backend": {
            "name": BACKENDS.get(result["backend"], result["backend"]),
            "version": _version(result),
            "model": result["model"],
            "task": "text-classification",
            "device": device[0],
            "device_ids": device[2] or None,
            "torch_dtype": None,
            "precision": result["precision"],
        },
        "scenario": {"name": "inference", "input_shapes": {"batch_size": result["latency_ms"].get("batch_size")}},
        "launcher": {"name": "inline"},
        "environment": {**result["environment"], "optimum_benchmark_version": None},
    }


def _version(result: Result) -> str | None:
    key = {"torch": "torch", "trt": "tensorrt"}.get(result["backend"], "onnxruntime")
    version: str | None = result["environment"].get(key)
    return version


def _memory(result: Result) -> dict[str, Any]:
    peak = result["peak_memory_mb"]
    return {
        "unit": "MB",
        "max_ram": peak["host"],
        "max_global_vram": None,
        "max_process_vram": peak["device"],
        "max_reserved": None,
        "max_allocated": None,
    }


def _latency(result: Result) -> dict[str, Any]:
    """Single calls are not kept, so that there is no count and no deviation of them."""
    known = {name: result["latency_ms"][name] / 1e3 for name in LATENCY}
    return {"unit": "s", "values": [], "count": None, "total": None, **known, "stdev": None, "stdev_": None}


def _energy(block: Block) -> dict[str, Any] | None:
    """Return a row's energy by part; null is a part that was not measured, or that this backend does not use."""
    if block["per_inference_j"] is None:
        return None
    names = {"cpu": PACKAGE, "ram": DRAM, "gpu": BOARD}
    parts = {name: _kwh(block, block["components"][key]) for name, key in names.items()}
    return {"unit": "kWh", **parts, "total": block["per_inference_j"] / JOULES_PER_KWH}


def _kwh(block: Block, part: Block) -> float | None:
    counts = part["joules"] is not None and part["counted"]
    return float(part["joules"]) / block["inferences"] / JOULES_PER_KWH if counts else None


def _efficiency(block: Block) -> dict[str, Any] | None:
    each = block["per_inference_j"]
    return {"unit": "samples/kWh", "value": JOULES_PER_KWH / each} if each else None
