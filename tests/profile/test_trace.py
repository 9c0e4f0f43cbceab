"""The trace follows the Trace Event Format: fields, units, order, and nesting on one thread."""

import json

from toolchain.profile.groups import GROUPS, Place
from toolchain.profile.spans import Span
from toolchain.profile.trace import chrome_trace, write_trace

CALLS = [
    [
        Span("tokenise", Place("tokenise"), 1000, 10),
        Span("call", None, 1000, 100),
        Span("infer", None, 1010, 85),
        Span("q", Place("attention", 2), 1012, 40),
        Span("lin1", Place("feed_forward", 2), 1052, 40),
    ],
    [Span("call", None, 1200, 50)],
]


def check(trace):
    """Check the format: complete events, sorted and nested, with all keys that Perfetto needs."""
    assert isinstance(trace["traceEvents"], list)
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    named = [event for event in trace["traceEvents"] if event["ph"] == "M"]
    assert {event["name"] for event in named} == {"process_name", "thread_name"}
    assert all(set(event["args"]) == {"name"} for event in named)
    assert len(events) + len(named) == len(trace["traceEvents"])
    assert len({(event["pid"], event["tid"]) for event in trace["traceEvents"]}) == 1
    stack = []
    for before, event in zip([None, *events], events, strict=False):
        assert {"name", "cat", "ph", "ts", "dur", "pid", "tid"} <= event.keys()
        assert event["ts"] >= (before["ts"] if before else 0)
        assert event["dur"] >= 0
        assert event["cat"] in {*GROUPS, "call"}
        while stack and stack[-1] <= event["ts"]:
            stack.pop()
        assert not stack or event["ts"] + event["dur"] <= stack[-1] + 1e-3, f"{event['name']} outlasts what it is in"
        stack.append(event["ts"] + event["dur"])
    return events


def test_events_begin_at_0_and_frames_come_before_their_content():
    events = check(chrome_trace(CALLS, title="ort fp32 on cpu"))
    assert [event["name"] for event in events] == ["call", "tokenise", "infer", "q", "lin1", "call"]
    assert [event["ts"] for event in events] == [0, 0, 10, 12, 52, 200]
    assert events[3] | {"pid": 0} == {
        "name": "q",
        "cat": "attention",
        "ph": "X",
        "ts": 12,
        "dur": 40,
        "pid": 0,
        "tid": 1,
        "args": {"layer": 2},
    }


def test_the_trace_is_json(tmp_path):
    write_trace(tmp_path / "trace.json", CALLS, title="ort")
    trace = json.loads((tmp_path / "trace.json").read_text())
    check(trace)
    assert trace["traceEvents"][0]["args"] == {"name": "ort"}
    assert trace["displayTimeUnit"] == "ms"
