"""The bound of a kernel is what its shapes and the GPU's data sheet give by hand."""

from pathlib import Path

import pytest

from toolchain.engine.kernels import Kernel, Tensor, parse_kernels
from toolchain.errors import InputError
from toolchain.profile.roofline.gpus import find_gpu
from toolchain.profile.roofline.kernels import bounded, grouped, main_bound

T4 = find_gpu("t4").ceiling
LISTS = Path(__file__).parents[2] / "engine/kernels"


def gemm(rows, inner, columns, left, right):
    return Kernel(
        "layer.0.lin_myl0_1",
        "gemm",
        (Tensor("x", (rows, inner), left),),
        (Tensor("w", (inner, columns), right),),
        (Tensor("y", (rows, columns), "fp16"),),
        ("layer.0.lin",),
    )


@pytest.mark.parametrize(
    ("left", "right", "peak", "sizes"),
    [("int8", "int8", 130e12, (1, 1, 2)), ("fp16", "fp16", 65e12, (2, 2, 2)), ("int8", "fp16", 65e12, (1, 2, 2))],
)
def test_a_large_gemm_is_bound_by_the_peak_of_its_precision(left, right, peak, sizes):
    one = bounded(gemm(4096, 768, 3072, left, right), T4)
    assert one["us"] == pytest.approx(1e6 * 2 * 4096 * 768 * 3072 / peak)
    assert one["bound"] == "compute"
    assert one["bytes"] == sizes[0] * 4096 * 768 + sizes[1] * 768 * 3072 + sizes[2] * 4096 * 3072


def test_a_small_gemm_and_an_elementwise_kernel_are_bound_by_memory():
    small = bounded(gemm(8, 768, 768, "int8", "int8"), T4)
    assert small["us"] == pytest.approx(1e6 * small["bytes"] / 320e9)
    tensor = Tensor("x", (4096, 768), "fp16")
    added = bounded(Kernel("__myl_AddMul_myl0_1", "kgen", (tensor, tensor), (), (tensor,), ()), T4)
    assert added["us"] == pytest.approx(1e6 * 3 * 2 * 4096 * 768 / 320e9)
    assert {small["bound"], added["bound"]} == {"memory"}


def test_groups_hold_every_kernel_once():
    text = (LISTS / "int8.txt").read_text(encoding="utf-8")
    kernels = [bounded(one, T4, part="attention") for one in parse_kernels(text)]
    groups = grouped(kernels)
    assert sum(one["kernels"] for one in groups) == len(kernels)
    assert sum(one["us"] for one in groups) == pytest.approx(sum(one["us"] for one in kernels))
    assert sum(one["bytes"] for one in groups) == sum(one["bytes"] for one in kernels)
    assert main_bound(kernels) == "memory"  # so narrow a model never computes for longer than it reads


def test_a_kernel_of_varying_size_has_no_bound():
    text = (LISTS / "int8-dynamic.txt").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="lists no tensor sizes"):
        bounded(parse_kernels(text)[0], T4)
