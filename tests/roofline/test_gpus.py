"""The table of data sheets is consistent, and its T4 agrees with NVIDIA's data sheet."""

import pytest

from toolchain.errors import UsageError
from toolchain.roofline.gpus import find_gpu, gpu_of, load_gpus


def test_the_t4_agrees_with_its_data_sheet():
    t4 = find_gpu("T4")
    assert t4.ceiling.flop_per_s == {"fp32": 8.1e12, "fp16": 65e12, "int8": 130e12}
    assert (t4.ceiling.bytes_per_s, t4.tdp_w, t4.memory_gb) == (320e9, 70, 16)


@pytest.mark.parametrize("name", load_gpus())
def test_peaks_are_dense(name):
    """Tensor cores double their throughput at half the width; figures with sparsity are twice as high again."""
    gpu = find_gpu(name)
    peaks = gpu.tera_per_s
    assert peaks["int8"] == pytest.approx(2 * peaks["fp16"], rel=0.02)
    assert peaks.get("bf16", peaks["fp16"]) == peaks["fp16"]
    assert peaks.get("tf32", peaks["fp16"] / 2) == pytest.approx(peaks["fp16"] / 2, rel=0.02)
    assert "data sheet" in gpu.source


def test_an_unknown_gpu_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"--gpu v100: unknown\. Choose one of t4, .*h200"):
        find_gpu("v100")


def test_the_drivers_names_are_known():
    found = gpu_of("Tesla T4")
    assert found is find_gpu("t4")
    assert gpu_of("NVIDIA GeForce RTX 4090") is None
    names = [device for gpu in load_gpus().values() for device in gpu.devices]
    assert len(names) == len(set(names))
