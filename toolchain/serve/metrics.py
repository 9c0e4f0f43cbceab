"""The page /metrics: the service's counters and its GPUs, under Triton's names.

It is written here and not with prometheus-client, because that library adds `_total` to the name of every counter and
Triton's names have no such ending. A value that this machine cannot read is left out. Sources: Prometheus' text format
0.0.4; Triton's documentation page "Metrics" for names and units.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from toolchain.serve.gpus import GpuReading

if TYPE_CHECKING:
    from toolchain.serve.service import Service

# The samples of a metric, each with its labels and its value. A sample whose value is None is left out.
Samples = list[tuple[dict[str, str], float | None]]


@dataclass(frozen=True)
class Metric:
    """One metric: its name, its type (counter or gauge), its help text, and the attribute that holds its value."""

    name: str
    kind: str
    help: str
    attribute: str = ""

    def read(self, record: Any) -> float | None:
        """Return the value of the metric's attribute in `record`, or None if it is unknown.

        Nanoseconds are converted to microseconds.
        """
        value: float | None = attrgetter(self.attribute)(record)
        return value // 1000 if value is not None and self.attribute.endswith("_ns") else value


# Metrics of the model, whose values are attributes of Counters.
OF_MODEL = (
    Metric("nv_inference_request_success", "counter", "Successful requests", "success"),
    Metric("nv_inference_count", "counter", "Rows of successful requests", "rows"),
    Metric("nv_inference_exec_count", "counter", "Batches that engines ran", "executions"),
    Metric(
        "nv_inference_request_duration_us",
        "counter",
        "Time from request to response, summed over requests",
        "request_ns",
    ),
    Metric("nv_inference_queue_duration_us", "counter", "Time in the queue, summed over requests", "times.queue_ns"),
    Metric(
        "nv_inference_compute_input_duration_us",
        "counter",
        "Time to tokenise and build batches, summed over requests",
        "times.input_ns",
    ),
    Metric(
        "nv_inference_compute_infer_duration_us",
        "counter",
        "Time in the engine, summed over requests",
        "times.infer_ns",
    ),
    Metric(
        "nv_inference_compute_output_duration_us",
        "counter",
        "Time to compute labels and scores, summed over requests",
        "times.output_ns",
    ),
    Metric("nv_inference_pending_request_count", "gauge", "Requests that wait for an engine", "pending"),
    Metric("nv_cache_num_hits_per_model", "counter", "Rows that were found in the cache", "cache_hits"),
    Metric("nv_cache_num_misses_per_model", "counter", "Rows that were not found in the cache", "cache_misses"),
    Metric("nv_cache_num_entries", "gauge", "Rows in the cache", "cache_entries"),
)

STAGES = Metric("toolchain_cascade_rows", "counter", "Rows that each stage of a cascade answered")

FAILURES = Metric("nv_inference_request_failure", "counter", "Failed requests, by reason")

# Metrics of each GPU, whose values are attributes of GpuReading.
OF_GPU = (
    Metric("nv_gpu_utilization", "gauge", "Fraction of time, 0 to 1, in which a kernel ran", "usage.utilisation"),
    Metric("nv_gpu_power_usage", "gauge", "Power of the board, in watts", "power_w"),
    Metric("nv_gpu_power_limit", "gauge", "Power limit of the board, in watts", "usage.power_limit_w"),
    Metric("nv_gpu_memory_used_bytes", "gauge", "GPU memory in use by all processes", "usage.memory_used_bytes"),
    Metric("nv_gpu_memory_total_bytes", "gauge", "Memory of the GPU", "usage.memory_total_bytes"),
    Metric("nv_energy_consumption", "counter", "Energy of the board since the service started, in joules", "energy_j"),
)

PER_REQUEST = Metric(
    "toolchain_energy_joules_per_request",
    "gauge",
    "Energy of the boards since the service started, idle time included, in joules for each successful request",
)


def render(service: "Service", gpus: Sequence[GpuReading] = ()) -> bytes:
    """Return the page in Prometheus' text format."""
    return "".join(_lines(service, gpus)).encode()


def _lines(service: "Service", gpus: Sequence[GpuReading]) -> Iterator[str]:
    model, counters = {"model": service.name, "version": service.version}, service.counters
    for metric in OF_MODEL:
        yield from _format(metric, [(model, metric.read(counters))])
    by_reason = counters.failures.items()
    yield from _format(FAILURES, [({**model, "reason": reason}, count) for reason, count in by_reason])
    by_stage = counters.stage_rows.items()
    yield from _format(STAGES, [({**model, "stage": stage}, count) for stage, count in by_stage])
    for metric in OF_GPU:
        yield from _format(metric, [({"gpu_uuid": gpu.uuid}, metric.read(gpu)) for gpu in gpus])
    yield from _format(PER_REQUEST, [(model, _joules_per_request(service, gpus))])


def _joules_per_request(service: "Service", gpus: Sequence[GpuReading]) -> float | None:
    """Return the energy of the GPUs since the start, in joules, divided by the number of successful requests.

    Return None if the engines run on a CPU, if the energy of a GPU is unknown, or before the first successful request.
    """
    joules = [gpu.energy_j for gpu in gpus if gpu.energy_j is not None]
    if not joules or len(joules) < len(gpus) or not service.counters.success or service.device == "cpu":
        return None
    return sum(joules) / service.counters.success


def _format(metric: Metric, samples: Samples) -> Iterator[str]:
    known = [(labels, value) for labels, value in samples if value is not None]
    if known:
        yield f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    for labels, number in known:
        written = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
        yield f"{metric.name}{{{written}}} {number}\n"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
