"""The request log: one line for each request over HTTP or gRPC, as text or as JSON.

A line holds nothing that a client wrote: no text, token, header, query or name, and a path only if it is one of the
service's own. So it can neither leak a secret nor be forged.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from toolchain.records.serving import RequestLine
from toolchain.serve.counters import Times

log = logging.getLogger(__name__)

# The status of a request whose client left before the response, as nginx logs it.
CLIENT_GONE = 499


@dataclass(slots=True)
class Entry:
    """The facts of one request that its log line contains; the server and the service fill them in.

    `id` is the identifier that the service gives the request. It is empty if requests are not logged.
    """

    id: str = ""
    status: int = CLIENT_GONE
    rows: int | None = None
    tokens: int | None = None
    times: Times | None = None


_current: ContextVar[Entry] = ContextVar("request_log_entry")


def current() -> Entry:
    """Return the log entry of the request that the current task answers.

    If the request is not logged, return a new entry, which nothing reads.
    """
    return _current.get(None) or Entry()


class RequestLog:
    """Logs each request as one line.

    `form` is `text`, `json`, or `off` to log no requests.
    """

    def __init__(self, form: str, *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._write, self._clock = FORMS[form], clock
        # The ids of requests begin with a random part, so that those of two processes that share a log differ.
        self._process, self._count = secrets.token_hex(4), 0

    @contextmanager
    def request(self, method: str, path: str | None) -> Iterator[Entry]:
        """Yield the entry of a request, and log it at the end.

        `path` is the request's path if it is one of the service's own, else None.
        """
        if not self._write or not log.isEnabledFor(logging.INFO):
            yield Entry()
            return
        self._count += 1
        entry, start, now = Entry(f"{self._process}-{self._count}"), self._clock(), datetime.now(UTC)
        token = _current.set(entry)
        try:
            yield entry
        finally:
            _current.reset(token)
            times = entry.times
            line: RequestLine = {
                "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "id": entry.id,
                "method": method,
                "path": path,
                "status": entry.status,
                "rows": entry.rows,
                "tokens": entry.tokens,
                "queue_ms": _ms(times.queue_ns) if times else None,
                "compute_ms": _ms(times.input_ns + times.infer_ns + times.output_ns) if times else None,
                "duration_ms": _ms(self._clock() - start),
            }
            # log.info would spend almost half of its time on finding the line of code that called it.
            record = logging.LogRecord(log.name, logging.INFO, "", 0, self._write(line), None, None)
            log.handle(record)


def _ms(ns: int) -> float:
    return round(ns / 1e6, 3)


def as_text(line: RequestLine) -> str:
    """Return a line for people to read.

    It has the time, method, path and status, then the other known values as `name=value`.
    """
    head = f"{line['time']} {line['method']} {line['path'] or '-'} {line['status']}"
    rest = {key: value for key, value in line.items() if key not in ("time", "method", "path", "status")}
    return " ".join([head, *(f"{key}={value}" for key, value in rest.items() if value is not None)])


def as_json(line: RequestLine) -> str:
    """Return a line for programs to read: one JSON object."""
    return orjson.dumps(line).decode()


FORMS: dict[str, Callable[[RequestLine], str] | None] = {"off": None, "text": as_text, "json": as_json}


class JsonLines(logging.Formatter):
    """Formats every message of the service as one JSON object, so that all lines of its log are JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a log record.

        The message of a request is already JSON. Any other message is put into an object with its time and level.
        """
        if record.name == log.name:
            return record.getMessage()
        made = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = {"time": made, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            message["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(message).decode()


# The default of the servers: requests are not logged.
OFF = RequestLog("off")
