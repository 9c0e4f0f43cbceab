"""Ctrl-C in the middle of a build: Python sees it while a callback runs, or else when the library's call is over."""

import signal as _signal
import sys as _sys

from ._setup import FAULTS as _FAULTS

_pending = ["interrupt"] if "interrupt" in _FAULTS else []


def call(method, args):
    """Call a step's callback; the signal comes at the first call that the callback makes, if it makes one."""
    code = getattr(getattr(method, "__func__", method), "__code__", None)
    if not _pending or code is None:
        return method(*args)

    def watch(frame, event, _):
        inner = event == "call" and frame.f_back is not None and frame.f_back.f_code is code
        if inner or (event == "c_call" and frame.f_code is code):
            _sys.setprofile(None)
            arrive()

    _sys.setprofile(watch)
    try:
        return method(*args)
    finally:
        _sys.setprofile(None)


def arrive():
    """Send it, once; whoever has the handler decides what follows, by default KeyboardInterrupt here."""
    if _pending:
        _pending.clear()
        _signal.raise_signal(_signal.SIGINT)
