"""A profile accounts for the whole call on each backend, and each number has its method."""

import dataclasses
import json

import pytest

from toolchain import profile as profiling
from toolchain.errors import UsageError
from toolchain.profile import profile
from toolchain.profile.groups import GROUPS, NOWHERE, Place
from toolchain.profile.spans import Span
from toolchain.profile.timed import LAUNCHES, Timed
from toolchain.profile.variants import Workload, open_variants

PARTS = ["embedding", "attention", "feed_forward", "head"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, build_tiny):
    target = tmp_path_factory.mktemp("profile") / "bundle"
    build_tiny(target)
    return target


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toolchain.profile.timed.CALLS", 2)
        yield


def ignore(line):
    pass


@pytest.mark.parametrize(
    "changes",
    [{"backend": "ort"}, {"backend": "ort", "file": "model.onnx"}, {"backend": "torch"}],
    ids=["int8", "fp32", "torch"],
)
def test_the_groups_add_up_to_the_profiled_call(bundle, changes, tmp_path):
    record = profile(bundle, {**changes, "device": "cpu"}, trace=tmp_path / "t.json", progress=ignore)
    ms = {one["group"]: one["ms"] for one in record["groups"]}
    assert list(ms) == list(GROUPS)
    assert sum(ms.values()) == pytest.approx(record["profiled_ms"])
    assert sum(one["share"] for one in record["groups"]) == pytest.approx(1)
    assert record["overhead"] == pytest.approx(record["profiled_ms"] / record["wall_ms"] - 1)
    assert record["placed_share"] >= 0.97
    assert (record["calls"], record["rows_from"]) == (4, "the validation split")
    for part in PARTS:
        assert ms[part] == pytest.approx(sum(one["ms"] for one in record["layers"] if one["group"] == part))
    assert {one["reason"] for one in record["groups"]} == {"not_requested"}
    assert {one["energy_j"] for one in record["groups"]} == {None}
    assert record["nsys_command"] is None
    json.dumps(record, allow_nan=False)


def test_the_trace_of_a_profile_keeps_the_format(bundle, by_path, tmp_path):
    profile(bundle, {"backend": "ort", "device": "cpu"}, trace=tmp_path / "trace.json", progress=ignore)
    events = by_path("profile/test_trace").check(json.loads((tmp_path / "trace.json").read_text()))
    assert {event["cat"] for event in events} >= {"call", "tokenise", "copy", *PARTS}
    assert sum(event["name"] == "call" for event in events) == 4


@pytest.mark.parametrize("backend", ["ort", "torch"])
def test_the_energy_of_each_part_comes_from_ablation(bundle, backend):
    calls = []

    def joules(work):
        calls.append(work())
        return 10.0 - 0.01 * len(calls), None

    lines = []
    changes = {"backend": backend, "device": "cpu"}
    record = profile(bundle, changes, joules_per_call=joules, rounds=2, progress=lines.append)
    assert len(calls) == 2 * 7
    methods = {one["group"]: one["method"] for one in record["groups"]}
    assert methods == {**dict.fromkeys(GROUPS, "ablation"), "other": "unavailable"}
    assert record["whole"]["energy_j"] == pytest.approx(10, abs=0.2)
    assert record["remainder"]["energy_ci95_j"] is not None
    assert "round 1 of 2: without attention" in lines
    assert any(line.startswith("round 2 of 2: with ") and line.endswith(" of head") for line in lines)


def test_a_failed_energy_measurement_has_a_reason_and_times_remain(bundle):
    changes = {"backend": "ort", "device": "cpu"}
    record = profile(bundle, changes, joules_per_call=lambda work: (None, "no_nvml_library"), progress=ignore)
    assert {one["reason"] for one in record["groups"]} == {"no_nvml_library"}
    assert all(one["ms"] > 0 for one in record["groups"])


def test_times_come_from_ablation_if_the_profiler_times_launches_only(bundle, monkeypatch):
    real = profiling.time_calls

    def launches(target, load):
        return dataclasses.replace(real(target, load), clock=LAUNCHES)

    monkeypatch.setattr(profiling, "time_calls", launches)
    record = profile(bundle, {"backend": "ort", "device": "cpu"}, rounds=2, progress=ignore)
    assert record["time_method"] == "ablation"
    assert record["layers"] == []
    assert {one["group"] for one in record["groups"]} == set(GROUPS)
    assert sum(one["ms"] for one in record["groups"]) >= 0.9 * record["wall_ms"]


def test_the_time_between_spans_is_other():
    call = [
        Span("tokenise", Place("tokenise"), 0, 100),
        Span("infer", None, 100, 800),
        Span("call", None, 0, 1000),
        Span("q", Place("attention", 0), 200, 300),
        Span("x", NOWHERE, 600, 100),
    ]
    timed = Timed([call], [0.5, 0.8, 9.0], "host")
    assert timed.groups == {"tokenise": 0.1, "attention": 0.3, "other": pytest.approx(0.6)}
    assert timed.sums() == {
        "calls": 1,
        "wall_ms": 0.8,
        "profiled_ms": 1.0,
        "overhead": pytest.approx(0.25),
        "placed_share": 0.75,
        "clock": "host",
    }


def test_a_backend_without_a_profiler_is_refused_at_once():
    with pytest.raises(UsageError, match="--backend ort-trt: this backend cannot be profiled"):
        profile(None, {"backend": "ort-trt"})


def test_built_in_sentences_replace_missing_data(bundle, monkeypatch):
    resolved = profiling.find_target({"backend": "ort", "device": "cpu"}, bundle).resolved
    gone = dataclasses.replace(resolved, recipe=resolved.recipe.replace(data="/nowhere"))
    texts, origin = profiling._texts(gone)
    assert (len(texts), origin) == (512, "built-in sentences")


def test_short_parts_are_repeated_more_and_copies_to_a_gpu_remain(bundle):
    target = profiling.find_target({"backend": "ort", "device": "cpu"}, bundle)
    load = Workload(target.resolved.encode, [("a good film",)] * 4)
    ms = {"tokenise": 1.0, "copy": 1.0, "embedding": 1.0, "attention": 3.0, "feed_forward": 3.9, "head": 0.1}
    with open_variants(target, load, ms) as variants:
        assert {one.group: one.times for one in variants} == {
            "tokenise": -1,
            "copy": -1,
            "attention": -1,
            "feed_forward": -1,
            "embedding": 2,
            "head": 16,
        }
    with open_variants(dataclasses.replace(target, device="cuda:0", backend="trt"), load, ms) as variants:
        assert [one.group for one in variants] == ["tokenise"]
