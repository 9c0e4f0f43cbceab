"""TensorRT's profiler times the layers and the inspector's list places them, with stand-ins for the libraries."""

import json

import numpy as np
import onnxruntime
import pytest

from toolchain.errors import InputError
from toolchain.profile import profile
from toolchain.profile.profilers import open_profiler
from toolchain.profile.profilers.trt import plan_places
from toolchain.profile.spans import group_ms

PLAN = "plans/sm75-trt10.16.1.11/model.plan"


def batch():
    mask = np.tril(np.ones((6, 12), np.int32))[:, :12]
    return {"input_ids": mask * 7, "attention_mask": mask}


@pytest.fixture
def built(toolchain, bundle_of, tmp_path):
    """Return what builds a plan of a precision and returns its bundle."""

    def run(precision, *options):
        bundle = bundle_of(precision)
        shapes = ("--buckets", "16,128", "--batch-size", "1,8,128", *options)
        done = toolchain("build", bundle, "--backend", "trt", "-q", *shapes, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return bundle

    return run


def time_layers(bundle):
    plan = bundle / PLAN
    with open_profiler("trt", plan) as profiled:
        logits = [profiled.infer(batch()) for _ in range(2)]
        calls = profiled.spans()
    expected = onnxruntime.InferenceSession(bundle / "model.onnx").run(["logits"], batch())[0]
    np.testing.assert_allclose(logits[1], expected, atol=0.15)
    assert len(calls) == 2
    for call in calls:
        assert (call[0].name, call[-1].name) == ("batch to device", "logits to host")
        assert [span.start_us + span.dur_us for span in call][:-1] == [span.start_us for span in call[1:]]
    ms = group_ms(calls)
    assert set(ms) - {"other"} == {"copy", "embedding", "attention", "feed_forward", "head"}
    layers = {span.place.layer for span in calls[0] if span.place.group == "attention"}
    assert layers >= {0, 1}
    listed = json.loads((plan.parent / "layers.json").read_text())["Layers"]
    places = plan_places(plan)
    assert len(places) == len({layer["Name"] for layer in listed})
    assert sum(place.group == "other" for place in places.values()) <= 0.1 * len(places)


@pytest.mark.parametrize(
    ("precision", "options"),
    [("fp32", ()), ("int8", ()), ("fp16", ("--attention", "plugin")), ("int8", ("--attention", "plugin"))],
)
def test_layers_are_placed_and_copies_are_timed(built, in_double, precision, options):
    in_double(time_layers, bundle=built(precision, *options))


def open_without_layers(bundle):
    plan = bundle / PLAN
    (plan.parent / "layers.json").unlink()
    with pytest.raises(InputError, match=r"layers\.json: cannot be read"), open_profiler("trt", plan):
        pass


def test_a_plan_without_its_list_of_layers_is_refused(built, in_double):
    in_double(open_without_layers, bundle=built("fp32"))


def profile_joules(bundle, record):
    def joules(work):
        work()
        return 1.5, None

    found = profile(bundle, {"backend": "trt"}, joules_per_call=joules, progress=lambda line: None)
    record.write_text(json.dumps(found, allow_nan=False))


def test_the_energy_of_a_plans_parts_is_apportioned_by_time(built, in_double, tmp_path):
    bundle = built("fp32")
    in_double(profile_joules, bundle=bundle, record=tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    methods = {one["group"]: one["method"] for one in record["groups"]}
    assert methods["tokenise"] == "ablation"
    assert {methods[group] for group in ("copy", "embedding", "attention", "feed_forward", "head")} == {"by_time"}
    assert record["remainder"]["reason"] == "by_time"
    assert sum(one["energy_j"] for one in record["groups"]) == pytest.approx(1.5)
    assert record["clock"] == "tensorrt_profiler"
    assert record["nsys_command"].startswith("nsys profile -t cuda,nvtx -o toolchain-profile toolchain profile ")
    assert str(bundle) in record["nsys_command"]
