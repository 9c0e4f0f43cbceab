"""The GPU benchmark on a small model and a CPU: every contender runs, or is listed with a reason."""

import importlib
import json
import statistics

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gpu(root):
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(root / "benchmarks/gpu"))
        return importlib.import_module("run")


@pytest.fixture(scope="module")
def record(gpu, tmp_path_factory):
    file = tmp_path_factory.mktemp("gpu") / "record.json"
    options = ["--device", "cpu", "--rows", "64", "--seconds", "0", "--energy-seconds", "0", "--small"]
    plain = torch.nn.Module.compile
    with pytest.MonkeyPatch.context() as patched:
        # Traced and guarded as always, but not compiled to machine code: seconds, not minutes.
        patched.setattr(torch.nn.Module, "compile", lambda module, **kept: plain(module, backend="aot_eager", **kept))
        found = gpu.main([*options, "-o", str(file)])
    assert json.loads(file.read_text()) == found
    return found


def test_every_contender_ran_or_has_a_reason(gpu, record):
    ran = {one["name"] for one in record["contenders"]}
    assert ran | set(record["left_out"]) == set(gpu.CONTENDERS)
    assert ran == {name for name, one in gpu.CONTENDERS.items() if not one.gpu_only}
    assert set(record["left_out"].values()) == {"needs CUDA"}


def test_ratios_are_to_the_baseline(gpu, record):
    base = next(one for one in record["contenders"] if one["name"] == gpu.BASELINE)
    assert (base["rows_per_s_ratio"], base["batches"], base["precision"]) == (1.0, 2, "fp32")
    others = [one["padding_efficiency"] for one in record["contenders"] if one is not base]
    assert base["padding_efficiency"] < min(others)


def test_logits_agree_with_float32_and_differ_between_rows(record):
    for one in record["contenders"]:
        assert one["max_abs_logit_difference"] <= (0.1 if one["precision"] == "bf16" else 1e-4)
        assert one["largest_logit"] > 0.05


def test_what_was_not_measured_is_null(record):
    assert record["energy"]["reason"] == "not_requested"
    assert {one["j_per_row"] for one in record["contenders"]} == {None}


def test_a_contender_that_fails_does_not_stop_the_others(gpu, tmp_path):
    from contextlib import ExitStack

    def fail(place):
        raise RuntimeError("first line\nsecond line")

    chosen = {"broken": gpu.Contender(fail, "fp32", gpu_only=False), "torch fp32": gpu.REFERENCE}
    with ExitStack() as stack:
        place = gpu.make_place(tmp_path, "cpu", rows=8, small=True)
        entries, left_out = gpu.open_all(chosen, place, stack)
        assert list(entries) == ["torch fp32"]
    assert left_out == {"broken": "RuntimeError: first line"}


def test_the_rows_are_as_long_as_sst2s(gpu, tmp_path, shared):
    place = gpu.make_place(tmp_path, "cpu", rows=872, small=True)
    rows = (shared("glue/sst2") / "validation.tsv").read_text().splitlines()[1:]
    words = [len(row.rsplit("\t", 1)[0].split()) for row in rows]
    assert len(words) == len(place.tokens)
    # A row has two special tokens, and some words have several pieces.
    assert statistics.fmean(place.tokens.lengths) == pytest.approx(statistics.fmean(words), rel=0.4)
    assert np.corrcoef(words, place.tokens.lengths)[0, 1] > 0.95
