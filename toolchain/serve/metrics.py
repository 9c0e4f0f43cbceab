"""The page /metrics: what the service has done, under the names that Triton gives them, and what it took.

Written here and not by prometheus-client, whose counters are all called `..._total`; Triton's are not. What this
machine cannot tell is left out. Sources: Prometheus' text format 0.0.4; Triton's "Metrics" page for names and units.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from toolchain.serve.gpus import Gpus, Reading

if TYPE_CHECKING:
    from toolchain.serve.service import Service

Samples = list[tuple[dict[str, str], float | None]]
"""Labels and value; None is left out."""


@dataclass(frozen=True)
class Metric:
    """One name of the page: its type, what it says, and the attribute that it is read from."""

    name: str
    kind: str
    help: str
    source: str = ""

    def read(self, found: Any) -> float | None:
        """Return its value, None where it is not known."""
        value: float | None = attrgetter(self.source)(found)
        return value


OF_MODEL = (
    Metric("nv_inference_request_success", "counter", "Requests answered", "success"),
    Metric("nv_inference_count", "counter", "Rows answered", "rows"),
    Metric("nv_inference_exec_count", "counter", "Batches that an engine ran", "executions"),
    Metric("nv_inference_request_duration_us", "counter", "From arrival to answer, summed over requests", "request_us"),
    Metric("nv_inference_queue_duration_us", "counter", "Waiting for an engine, summed over requests", "queue_us"),
    Metric("nv_inference_compute_input_duration_us", "counter", "Making token ids and batches", "compute_input_us"),
    Metric("nv_inference_compute_infer_duration_us", "counter", "In the engine", "compute_infer_us"),
    Metric("nv_inference_compute_output_duration_us", "counter", "Making labels and scores", "compute_output_us"),
    Metric("nv_inference_pending_request_count", "gauge", "Requests that wait for an engine", "pending"),
)
"""What is told of the model, from Counters."""

FAILURES = Metric("nv_inference_request_failure", "counter", "Requests that were not answered, by reason")

OF_GPU = (
    Metric("nv_gpu_utilization", "gauge", "Share of time, 0 to 1, in which a kernel ran", "usage.utilisation"),
    Metric("nv_gpu_power_usage", "gauge", "Watts of the board", "power_w"),
    Metric("nv_gpu_power_limit", "gauge", "Watts that the board may use", "usage.power_limit_w"),
    Metric("nv_gpu_memory_used_bytes", "gauge", "In use by all processes", "usage.memory_used_bytes"),
    Metric("nv_gpu_memory_total_bytes", "gauge", "All there is", "usage.memory_total_bytes"),
    Metric("nv_energy_consumption", "counter", "Joules of the board since the service started", "energy_j"),
)
"""What is told of a GPU, from a Reading."""

PER_REQUEST = Metric(
    "toolchain_energy_joules_per_request",
    "gauge",
    "Joules of the board since the service started, idle time included, by request answered",
)


async def scrape(service: "Service", gpus: Gpus | None = None) -> bytes:
    """Return the page, with the GPUs read beside the event loop: some drivers take milliseconds for an answer."""
    return text(service, await asyncio.to_thread(gpus.read) if gpus else ())


def text(service: "Service", gpus: Sequence[Reading] = ()) -> bytes:
    """Return the page in Prometheus' text format."""
    return "".join(_lines(service, gpus)).encode()


def _lines(service: "Service", gpus: Sequence[Reading]) -> Iterator[str]:
    model, counters = {"model": service.name, "version": service.version}, service.counters
    for metric in OF_MODEL:
        yield from _written(metric, [(model, metric.read(counters))])
    yield from _written(FAILURES, [({**model, "reason": why}, count) for why, count in counters.failures.items()])
    for metric in OF_GPU:
        yield from _written(metric, [({"gpu_uuid": gpu.uuid}, metric.read(gpu)) for gpu in gpus])
    yield from _written(PER_REQUEST, [(model, _joules_per_request(service, gpus))])


def _joules_per_request(service: "Service", gpus: Sequence[Reading]) -> float | None:
    """Return None where no GPU runs the engines, its energy is not known, or nothing was answered yet."""
    joules = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
    if not joules or len(joules) < len(gpus) or not service.counters.success or service.device == "cpu":
        return None
    return sum(joules) / service.counters.success


def _written(metric: Metric, samples: Samples) -> Iterator[str]:
    known = [(labels, value) for labels, value in samples if value is not None]
    if known:
        yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    for labels, number in known:
        named = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
        yield f"{metric.name}{{{named}}} {number}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
