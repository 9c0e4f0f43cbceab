"""The page /metrics, read by prometheus-client's parser, with the GPUs of a scripted NVML."""

import re
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from toolchain.meters.gpu_state import Usage
from toolchain.serve.counters import Counters, Times
from toolchain.serve.gpus import GpuReading, open_gpus
from toolchain.serve.metrics import render

PAIR = {"model": "demo", "version": "1"}
GPU = GpuReading("GPU-1", Usage(0.5, 3_000_000_000, 15_000_000_000, 70.0), 31.5, 120.0)


def service(device="cpu", name="demo"):
    return SimpleNamespace(name=name, version="1", device=device, counters=Counters())


def read(page):
    """Return (name, labels) -> value, and name -> type. The parser adds `_total` to counters; it is removed here."""
    assert not re.search(rb"_total[ {]", page)
    families = list(text_string_to_metric_families(page.decode()))
    samples = [(sample, family.type) for family in families for sample in family.samples]
    return (
        {(sample.name.removesuffix("_total"), tuple(sample.labels.items())): sample.value for sample, _ in samples},
        {sample.name.removesuffix("_total"): kind for sample, kind in samples},
    )


def of_model(page):
    return {name: value for (name, labels), value in read(page)[0].items() if dict(labels) == PAIR}


def test_requests_are_counted_under_tritons_names():
    served = service()
    for rows in (1, 7):
        served.counters.count_success(rows, 9_000_000, Times(1_000_000, 2_000_000, 3_000_000, 500_000))
    served.counters.executions, served.counters.pending = 1, 4
    for reason in ("REJECTED", "REJECTED", "BACKEND"):
        served.counters.count_failure(reason, 5_000)
    page = render(served)
    assert of_model(page) == {
        "nv_inference_request_success": 2,
        "nv_inference_count": 8,
        "nv_inference_exec_count": 1,
        "nv_inference_request_duration_us": 18_000,
        "nv_inference_queue_duration_us": 2_000,
        "nv_inference_compute_input_duration_us": 4_000,
        "nv_inference_compute_infer_duration_us": 6_000,
        "nv_inference_compute_output_duration_us": 1_000,
        "nv_inference_pending_request_count": 4,
    }
    failures = {dict(labels)["reason"]: value for (name, labels), value in read(page)[0].items() if "failure" in name}
    assert failures == {"OTHER": 0, "REJECTED": 2, "CANCELED": 0, "BACKEND": 1}


def test_types_are_tritons_although_no_name_ends_in_total():
    kinds = read(render(service(), [GPU]))[1]
    gauges = {
        "nv_inference_pending_request_count",
        "nv_gpu_utilization",
        "nv_gpu_power_usage",
        "nv_gpu_power_limit",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_memory_total_bytes",
    }
    assert {name for name, kind in kinds.items() if kind == "gauge"} == gauges
    assert set(kinds.values()) == {"counter", "gauge"}


def test_a_name_with_any_characters_is_one_label():
    name = 'a "b" \\n\nc'
    assert {dict(labels)["model"] for _, labels in read(render(service(name=name)))[0]} == {name}


def test_a_gpu_is_reported_under_its_uuid():
    found = read(render(service(), [GPU]))[0]
    reported = {name: value for (name, labels), value in found.items() if dict(labels) == {"gpu_uuid": "GPU-1"}}
    assert reported == {
        "nv_gpu_utilization": 0.5,
        "nv_gpu_power_usage": 31.5,
        "nv_gpu_power_limit": 70,
        "nv_gpu_memory_used_bytes": 3e9,
        "nv_gpu_memory_total_bytes": 15e9,
        "nv_energy_consumption": 120,
    }


def test_an_unknown_value_of_a_gpu_is_left_out_with_its_name():
    page = render(service(), [GpuReading("GPU-1", Usage(None, None, None, 70.0), None, None)])
    assert [name for name, labels in read(page)[0] if "gpu_uuid" in dict(labels)] == ["nv_gpu_power_limit"]
    assert b"nv_gpu_power_usage" not in page


@pytest.mark.parametrize(
    ("device", "answered", "gpus", "joules"),
    [
        ("cuda:0", 4, [GPU], 30),
        ("cuda:0", 4, [GPU, GPU], 60),
        ("cuda:0", 0, [GPU], None),
        ("cpu", 4, [GPU], None),
        ("cuda:0", 4, [], None),
        ("cuda:0", 4, [GPU, GpuReading("GPU-2", GPU.usage, 31.5, None)], None),
    ],
)
def test_joules_per_request_need_the_energy_of_every_gpu_of_the_engines(device, answered, gpus, joules):
    served = service(device)
    for _ in range(answered):
        served.counters.count_success(1, 1000, Times())
    assert of_model(render(served, gpus)).get("toolchain_energy_joules_per_request") == joules


T4 = "device 0 6 GPU-11111111-aaaa Tesla T4\nupdate_ms 0 20\nbase_mj 0 7000000\npower 0 0 30000\n"


def joules(gpus):
    return [gpu.energy_j for gpu in gpus.read()]


def test_energy_counts_from_the_start_of_the_service(nvml):
    nvml.load(f"{T4}utilisation 0 37\nframe_buffer 0 3000 15000\n")
    nvml.advance(5)
    with open_gpus("cuda:0") as gpus:
        assert joules(gpus) == [None]  # the counter has not moved
        nvml.advance(3)
        assert joules(gpus) == [nvml.true_joules(0, 5, 8)] == [90]
        (gpu,) = gpus.read()
        assert (gpu.uuid, gpu.power_w) == ("GPU-11111111-aaaa", 30)
        assert (gpu.usage.utilisation, gpu.usage.memory_used_bytes) == (0.37, 3000)


def test_energy_is_unknown_after_the_counter_was_reset(nvml):
    nvml.load(f"{T4}reset 0 2000 0\n")
    with open_gpus("cuda:0") as gpus:
        nvml.advance(1)
        assert joules(gpus) == [30]
        nvml.advance(2)
        assert joules(gpus) == [None]
        nvml.advance(10**6)
        assert joules(gpus) == [None]


def test_a_lost_gpu_is_reported_by_its_uuid_alone(nvml):
    nvml.load(f"{T4}error 0 * 15 1000 -1\n")
    with open_gpus("cpu") as gpus:
        nvml.advance(2)
        (gpu,) = gpus.read()
        assert (gpu.usage, gpu.power_w, gpu.energy_j) == (Usage(None, None, None, None), None, None)


@pytest.mark.parametrize(
    "scenario", [f"{T4}mig 0 1\n", f"{T4}no_counter 0\nmissing 0 nvmlDeviceGetPowerUsage\nerror 0 field186 3 0 -1\n"]
)
def test_power_and_energy_of_a_mig_slice_or_without_sensors_are_unknown(nvml, scenario):
    nvml.load(scenario)
    with open_gpus("cuda:0") as gpus:
        nvml.advance(2)
        assert [(gpu.power_w, gpu.energy_j) for gpu in gpus.read()] == [(None, None)]


def test_without_nvml_there_are_no_gpus(nvml):
    nvml.load("init_error 9\n")
    with open_gpus("cuda:0") as gpus:
        assert gpus.read() == []
