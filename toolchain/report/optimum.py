"""Results in the format of optimum-benchmark 0.6.0, for programs that read its files.

optimum-benchmark's `benchmark.json` has the keys `config` and `report`. For an encoder, `report` has `load_model`,
`first_forward` and `forward`, each with memory in MB, latency in s, throughput in samples/s, energy in kWh per forward
pass and efficiency in samples/kWh (see its trackers/*.py). Values that this toolchain does not measure, or measures
differently, are null. A forward pass here is a batch of one row, so energy and latency are per row; the throughput is
that of the best batch size, as in a result.
"""

import json
from typing import Any, Literal

from toolchain.energy.record import JOULES_PER_KWH
from toolchain.meters.sources import BOARD, DRAM, PACKAGE
from toolchain.records.energy import ComponentRecord, EnergyBlock
from toolchain.records.result import Result
from toolchain.report.columns import look

VERSION = "0.6.0"

MEASUREMENTS = ("memory", "latency", "throughput", "energy", "efficiency")
LATENCY: tuple[Literal["mean", "p50", "p90", "p95", "p99"], ...] = ("mean", "p50", "p90", "p95", "p99")

# Backend of this project -> its name in optimum-benchmark, which has no name for TensorRT without ONNX Runtime.
BACKENDS = {"torch": "pytorch", "ort": "onnxruntime", "ort-trt": "onnxruntime", "openvino": "openvino"}

Values = dict[str, Any]  # a format of another project, with values of several types


def optimum_benchmark(results: list[Result]) -> str:
    """Return a JSON list with a `benchmark.json` for each result."""
    return json.dumps([benchmark(result) for result in results], indent=2, ensure_ascii=False) + "\n"


def benchmark(result: Result) -> Values:
    """Return a result in the form of `benchmark.json`; values that were not measured are None."""
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


def _config(result: Result) -> Values:
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
    key = {"torch": "torch", "trt": "tensorrt", "trt-rtx": "tensorrt_rtx", "openvino": "openvino"}.get(
        result["backend"], "onnxruntime"
    )
    version = look(result, f"environment.{key}")
    return None if version is None else str(version)


def _memory(result: Result) -> Values:
    peak = result["peak_memory_mb"]
    return {
        "unit": "MB",
        "max_ram": peak["host"],
        "max_global_vram": None,
        "max_process_vram": peak["device"],
        "max_reserved": None,
        "max_allocated": None,
    }


def _latency(result: Result) -> Values:
    """Return mean and percentiles of the latency in s.

    A result has no times of single calls, so their count and their standard deviation are None.
    """
    known: Values = {name: result["latency_ms"][name] / 1e3 for name in LATENCY}
    return {"unit": "s", "values": [], "count": None, "total": None, **known, "stdev": None, "stdev_": None}


def _energy(block: EnergyBlock) -> Values | None:
    """Return the energy per row in kWh for CPU, RAM and GPU, and in total; None if it was not measured.

    The value of one component is None if it was not measured, or is not part of this result's total.
    """
    if block["per_inference_j"] is None:
        return None
    names = {"cpu": PACKAGE, "ram": DRAM, "gpu": BOARD}
    parts = {name: _kwh(block, block["components"][key]) for name, key in names.items()}
    return {"unit": "kWh", **parts, "total": block["per_inference_j"] / JOULES_PER_KWH}


def _kwh(block: EnergyBlock, part: ComponentRecord) -> float | None:
    if part["joules"] is None or not part["counted"] or not block["inferences"]:
        return None
    return part["joules"] / block["inferences"] / JOULES_PER_KWH


def _efficiency(block: EnergyBlock) -> Values | None:
    each = block["per_inference_j"]
    return {"unit": "samples/kWh", "value": JOULES_PER_KWH / each} if each else None
