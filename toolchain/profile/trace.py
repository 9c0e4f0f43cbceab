"""Write spans as a Chrome trace for chrome://tracing and Perfetto (ui.perfetto.dev).

The format is the JSON object of the Trace Event Format: complete events (ph X) with ts and dur in microseconds, and
metadata events (ph M) with the names of process and thread.
"""

import json
import os
from pathlib import Path
from typing import Any

from toolchain.base.files import write_text
from toolchain.profile.spans import Span

# A JSON object of Google's Trace Event Format, whose keys depend on its type.
Event = dict[str, Any]

THREAD = 1

# Category of spans that contain other spans.
FRAME = "call"


def chrome_trace(calls: list[list[Span]], *, title: str) -> Event:
    """Return the spans of all calls as one trace that begins at 0 and has the name `title`.

    Events are sorted by start. Of events with the same start, the longer comes first, so that an enclosing span comes
    before the spans in it.
    """
    process = os.getpid()
    spans = [span for call in calls for span in call]
    spans.sort(key=lambda span: (span.start_us, -span.dur_us))
    begin = spans[0].start_us if spans else 0.0
    names = {"process_name": title, "thread_name": "calls"}
    events: list[Event] = [
        {"name": kind, "ph": "M", "pid": process, "tid": THREAD, "args": {"name": name}} for kind, name in names.items()
    ]
    for span in spans:
        layer = {} if span.place is None or span.place.layer is None else {"layer": span.place.layer}
        events.append(
            {
                "name": span.name,
                "cat": span.place.group if span.place else FRAME,
                "ph": "X",
                "ts": span.start_us - begin,
                "dur": span.dur_us,
                "pid": process,
                "tid": THREAD,
                "args": layer,
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def write_trace(file: Path, calls: list[list[Span]], *, title: str) -> None:
    """Write the trace of `chrome_trace` to a JSON file."""
    write_text(file, json.dumps(chrome_trace(calls, title=title)))
