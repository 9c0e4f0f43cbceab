"""Spans add up by group and by name, and the recorder nests NVTX ranges as it nests spans."""

import itertools

import pytest

from toolchain.profile.groups import Place
from toolchain.profile.spans import Ranges, Span, SpanRecorder, end_to_end, group_ms, layer_times, nvtx_ranges

ATTENTION, COPY = Place("attention", 1), Place("copy")


def test_totals_are_means_of_a_call_and_frames_do_not_count():
    one = [Span("call", None, 0, 10_000), Span("batch", COPY, 0, 1000), Span("q", ATTENTION, 2000, 3000)]
    other = [
        Span("call", None, 0, 20_000),
        Span("batch", COPY, 0, 2000),
        Span("q", ATTENTION, 2000, 5000),
        Span("q", ATTENTION, 9000, 1000),
    ]
    assert group_ms([one, other]) == {"copy": 1.5, "attention": 4.5}
    assert layer_times([one, other]) == [
        {"name": "batch", "group": "copy", "layer": None, "calls": 1.0, "ms": 1.5},
        {"name": "q", "group": "attention", "layer": 1, "calls": 1.5, "ms": 4.5},
    ]


def test_spans_end_to_end_leave_no_gap():
    spans = end_to_end([("a", COPY, 2.0), ("b", ATTENTION, 3.0)])
    assert [(span.start_us, span.dur_us) for span in spans] == [(0, 2), (2, 3)]
    assert spans[1].later(10).start_us == 12


def test_the_recorder_records_spans_and_opens_nvtx_ranges():
    shown = []
    ticks = itertools.count()
    ranges = Ranges(lambda name: shown.append(name), lambda: shown.append("pop"))
    recorder = SpanRecorder(clock=lambda: float(next(ticks)), ranges=ranges)
    with recorder.span("call", None), pytest.raises(KeyError), recorder.span("q", ATTENTION):
        raise KeyError
    assert shown == ["call", "attention.1", "pop", "pop"]
    assert recorder.spans == [Span("q", ATTENTION, 1e6, 1e6), Span("call", None, 0, 3e6)]


def test_nvtx_is_pytorchs_and_only_used_on_a_gpu(monkeypatch):
    import torch

    shown = []
    assert nvtx_ranges("cpu") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert nvtx_ranges("cuda:0") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", shown.append)
    found = nvtx_ranges("cuda:0")
    assert found is not None
    found.push("attention.0")
    assert shown == ["attention.0"]
