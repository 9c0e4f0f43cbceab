"""The table of data sheets is consistent, and its T4 agrees with NVIDIA's data sheet."""

import pytest

from toolchain.errors import UsageError
from toolchain.profile.roofline.gpus import find_gpu, find_target, gpu_of, load_gpus


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
    # FP16 of a GeForce is given with FP16 accumulators; FP32 accumulators, which BF16 and TF32 have, halve it.
    wide = peaks["fp16"] / 2 if "GeForce" in gpu.name else peaks["fp16"]
    assert peaks.get("bf16", wide) == pytest.approx(wide, rel=0.001)
    assert peaks.get("tf32", wide / 2) == pytest.approx(wide / 2, rel=0.02)
    assert "data sheet" in gpu.source


def test_an_unknown_gpu_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"v100: this GPU is unknown\. Did you mean h100\? Choose one of t4, .*h200"):
        find_gpu("v100")


def test_the_drivers_names_are_known():
    found = gpu_of("Tesla T4")
    assert found is find_gpu("t4")
    assert gpu_of("NVIDIA GeForce RTX 4060") is None
    names = [device for gpu in load_gpus().values() for device in gpu.devices]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("target", "sm", "name"),
    [
        ("t4", 75, "NVIDIA T4"),
        ("a100", 80, "NVIDIA A100 40 GB SXM4"),
        ("sm86", 86, "NVIDIA A10"),
        ("RTX-4090", 89, "NVIDIA GeForce RTX 4090"),
        ("rtx5090", 120, "NVIDIA GeForce RTX 5090"),
        ("sm120", 120, "NVIDIA GeForce RTX 5090"),
    ],
)
def test_a_target_has_its_own_data_sheet(target, sm, name):
    assert find_target(target, sm).name == name


@pytest.mark.parametrize(
    ("target", "sm", "way_on"),
    [("rtx3090", 86, r"Give --target sm86 for the figures of the NVIDIA A10"), ("sm121", 121, r"Choose one of t4, ")],
)
def test_a_target_without_a_data_sheet_is_refused_with_the_way_on(target, sm, way_on):
    with pytest.raises(UsageError, match=rf"--target {target}: .*no data sheet.*\. {way_on}"):
        find_target(target, sm)
