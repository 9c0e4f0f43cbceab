"""The table of data sheets holds together, and says what the T4's says."""

import pytest

from toolchain.errors import UsageError
from toolchain.roofline.gpus import find_gpu, gpu_of, load_gpus


def test_the_t4_is_as_nvidia_says():
    t4 = find_gpu("T4")
    assert t4.ceiling.flop_per_s == {"fp32": 8.1e12, "fp16": 65e12, "int8": 130e12}
    assert (t4.ceiling.bytes_per_s, t4.tdp_w, t4.memory_gb) == (320e9, 70, 16)


@pytest.mark.parametrize("name", load_gpus())
def test_peaks_are_dense_ones(name):
    """Tensor cores do twice as much at half the width, in every generation here; sparse figures are twice that."""
    gpu = find_gpu(name)
    peaks = gpu.tera_per_s
    assert peaks["int8"] == pytest.approx(2 * peaks["fp16"], rel=0.02)
    assert peaks.get("bf16", peaks["fp16"]) == peaks["fp16"]
    assert peaks.get("tf32", peaks["fp16"] / 2) == pytest.approx(peaks["fp16"] / 2, rel=0.02)
    assert "data sheet" in gpu.source


def test_a_gpu_that_is_not_in_the_table_is_refused_with_those_that_are():
    with pytest.raises(UsageError, match=r"--gpu v100: no data sheet of it here\. Choose one of t4, .*h200"):
        find_gpu("v100")


def test_the_drivers_names_are_known():
    found = gpu_of("Tesla T4")
    assert found is find_gpu("t4")
    assert gpu_of("NVIDIA GeForce RTX 4090") is None
    names = [device for gpu in load_gpus().values() for device in gpu.devices]
    assert len(names) == len(set(names))
