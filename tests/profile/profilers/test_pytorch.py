"""The parts of a PyTorch model are marked without gaps, on the host's clock or by CUDA events."""

import itertools

import numpy as np
import pytest

from toolchain.checkpoint.model import find_model
from toolchain.profile.groups import Place
from toolchain.profile.profilers import open_profiler
from toolchain.profile.profilers.pytorch import Marks, on_gpu
from toolchain.profile.spans import Ranges

IN_ORDER = [
    "copy",
    "embedding",
    "attention",
    "attention.0",
    "feed_forward.0",
    "attention.1",
    "feed_forward.1",
    "head",
    "copy",
]


@pytest.mark.parametrize("kind", ["distilbert", "bert", "roberta"])
def test_each_part_is_marked_in_the_order_in_which_it_runs(checkpoints, probe, reference, kind):
    with open_profiler("torch", find_model(str(checkpoints[kind])), device="cpu", precision="fp32") as opened:
        found = [opened.infer(probe(kind)) for _ in range(2)]
        calls = opened.spans()
    np.testing.assert_allclose(found[0], reference(kind, probe(kind)), atol=1e-5)
    for call in calls:
        assert [str(span.place) for span in call] == IN_ORDER
        ends = [span.start_us + span.dur_us for span in call]
        assert [span.start_us for span in call[1:]] == ends[:-1]
        assert all(span.dur_us > 0 for span in call)
    assert len(calls) == 2


def test_on_a_gpu_stamps_are_events_in_microseconds(monkeypatch):
    import torch

    ticks = itertools.count()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at, self.ready = next(ticks), False

        def synchronize(self):
            self.ready = True

        def elapsed_time(self, other):
            assert other.ready, "asked for the time of an event that may not have happened"
            return 0.25 * (other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    marks = on_gpu("cuda")
    marks.mark("q", Place("attention", 0))
    assert [(span.name, span.dur_us) for span in marks.end()] == [("q", 250)]


def test_ranges_of_marks_do_not_overlap():
    shown = []
    ticks = itertools.count()
    ranges = Ranges(lambda name: shown.append(f"+{name}"), lambda: shown.append("-"))
    marks = Marks(lambda: next(ticks), lambda one, other: 5.0 * (other - one), ranges)
    marks.mark("q", Place("attention", 0))
    marks.mark("lin", Place("feed_forward", 0))
    spans = marks.end()
    assert [(span.name, span.start_us, span.dur_us) for span in spans] == [("q", 0, 5), ("lin", 5, 5)]
    assert shown == ["+attention.0", "-", "+feed_forward.0", "-"]
    assert marks.found == []
