"""The sentence that ends a gated build."""

import pytest

from toolchain.evaluation.deployment import sentence


def candidate(file="model.int8.cpu.onnx", verdict="passes", **comparison):
    found = {
        "metric": "accuracy",
        "n": 500,
        "drop_points": 0.2,
        "confidence": 0.95,
        "flips": {"lost": 2, "gained": 1, "changed": 3},
        "max_drop_points": 1.0,
        "rows_to_tell": None,
        **comparison,
    }
    return {"file": file, "backend": "ort", "device": "cpu", "verdict": verdict, "bytes": 52e6, "comparison": found}


def answer(*candidates, **changes):
    passing = [one["file"] for one in candidates if one["verdict"] == "passes"]
    values = {"file": passing[0] if passing else None, "speed_up": 3.21, "busy": False, "fp32_bytes": 62_400_000}
    return {**values, "candidates": list(candidates), **changes}


def test_what_passes_may_be_deployed():
    other = candidate("model.int8.onnx")
    assert sentence(answer(candidate(), other)) == (
        "You may deploy model.int8.cpu.onnx on a CPU: its accuracy is within 1 point of FP32's (95 % confidence); "
        "3 of 500 labels changed. It runs 3.2 times as fast as FP32 here, and has 52 MB instead of 62 MB. "
        "model.int8.onnx, the graph for GPUs, passes too."
    )
    rounded = sentence(answer(candidate(), {**other, "halves": True}))
    assert rounded.endswith("model.int8.onnx, the graph for GPUs with float16 rounding emulated, passes too.")


def test_a_graph_that_ran_in_halves_is_for_a_gpu_and_was_not_timed():
    only = {**candidate("model.fp16.onnx"), "halves": True}
    assert sentence(answer(only, speed_up=None)) == (
        "You may deploy model.fp16.onnx on a GPU (judged on this CPU with float16 rounding emulated): its accuracy is "
        "within 1 point of FP32's (95 % confidence); 3 of 500 labels changed. It has 52 MB instead of 62 MB."
    )
    fp8 = {**candidate("model.fp8.onnx"), "halves": True}
    assert "on a GPU of compute capability 8.9 or later (judged" in sentence(answer(fp8, speed_up=None))


def test_a_busy_machine_an_unknown_speed_and_unchanged_labels_are_said():
    unchanged = candidate(flips={"lost": 0, "gained": 0, "changed": 0})
    assert "none of 500 labels changed" in sentence(answer(unchanged))
    assert "(measured while the machine was busy)" in sentence(answer(unchanged, busy=True))
    assert "times" not in sentence(answer(unchanged, speed_up=None))


@pytest.mark.parametrize(("changed", "count"), [(3, "3"), (0, "none")])
def test_rows_of_several_labels_are_counted_as_rows(changed, count):
    one = candidate(metric="micro_f1", flips={"lost": 0, "gained": 0, "changed": changed})
    assert f"; the labels of {count} of 500 rows changed." in sentence(answer(one))


def test_what_fails_or_cannot_be_told_is_not_recommended():
    fails = candidate(verdict="fails", drop_points=1.66, metric="pearson", flips=None)
    unclear = candidate("model.int8.onnx", "cannot tell", rows_to_tell=1234)
    assert sentence(answer(fails, unclear)) == (
        "Do not deploy this bundle yet. model.int8.cpu.onnx fails: its pearson drops by 1.66 points, 1 is allowed. "
        "model.int8.onnx, the graph for GPUs, may pass or fail: its accuracy drops by 0.20 points, 1 is allowed, "
        "and 3 of 500 labels changed; about 1,234 rows would decide it."
    )
