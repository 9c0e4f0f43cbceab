"""Choices that a recipe leaves open."""

import pytest

from toolchain.bundle import resolved_recipe
from toolchain.bundle.resolved_recipe import default_precision
from toolchain.data.tasks import load_task
from toolchain.recipe import Recipe


@pytest.mark.parametrize(
    ("gpu", "options", "expected"),
    [
        ("NVIDIA T4", {}, "fp16"),
        ("NVIDIA T4", {"device": "cpu"}, "int8"),
        (None, {}, "int8"),
        (None, {"backend": "ort"}, "int8"),
        (None, {"backend": "trt"}, "fp16"),
    ],
)
def test_the_precision_is_fp16_for_a_gpu_and_int8_without(monkeypatch, gpu, options, expected):
    facts = {"driver": None, "cuda": None, "gpu": gpu, "reason": None}
    monkeypatch.setattr(resolved_recipe, "gpu_facts", lambda: facts)
    assert default_precision(Recipe(**options)) == expected


def test_the_demo_model_implies_its_task():
    assert load_task(Recipe(model="demo")).name == "demo"
    assert load_task(Recipe(model="demo", task="sst2")).name == "sst2"
    assert load_task(Recipe()).name == "sst2"


def test_a_gate_asks_for_the_best_ranges():
    assert Recipe().range_method == "entropy"
    assert Recipe(max_drop=1.0).range_method == "auto"
    assert Recipe(max_drop=1.0, calib_method="mse").range_method == "mse"
