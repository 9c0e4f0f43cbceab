"""The limit of everything that a client can ask for. docs/reference/limits.md is made from this file."""

from dataclasses import dataclass

from toolchain.errors import UsageError
from toolchain.recipe.options import flag


@dataclass(frozen=True)
class Limits:
    """Bounds of the service. A request above one of them is refused before any work is done for it."""

    # Rows of one inference request, and of one batch. Above it: 400.
    max_batch: int = 64
    # Padded positions of one batch: its rows times its longest row, in tokens.
    max_tokens: int = 4096
    # Characters of one text. Above it: 413.
    max_characters: int = 16_384
    # Rows that may wait in the queue, and rows of a list for /classify. Above it: 503, for the list 413.
    max_queue: int = 1024
    # Bytes of a request's body or message, both as it arrives and decompressed, and characters that /rerank reads: the
    # texts, each with the query. Above it: 413.
    max_body_bytes: int = 1 << 20
    # Longest wait in the queue, in seconds. Then: 503.
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                option = flag(name.removesuffix("_s").removesuffix("_bytes"))
                raise UsageError(f"{option} {value}: not above zero. Give a larger number.")
        if self.max_queue < self.max_batch:
            raise UsageError(
                f"--max-queue {self.max_queue}: a request of --max-batch {self.max_batch} rows would never fit. "
                f"Give {self.max_batch} or more."
            )


# Bytes of the request line and headers of an HTTP request, and of its trailers. Above it: 400.
HEAD_BYTES = 64 * 1024

# A body in small chunks arrives as several times its own bytes. At this multiple of the largest: disconnected.
BODY_TIMES = 16

# Seconds for which the body of a refused request is read and discarded, so that its client can read the response.
DISCARD_S = 2.0

# Seconds for a TLS handshake, a head, a body, and the reading of a response. Then: disconnected.
SILENT_S = 20.0

# Inputs of a request, and outputs. Half a million empty ones would block the event loop for seconds. Above it: 400.
MAX_TENSORS = 16

# Dimensions of a tensor, and depth of its lists in JSON; inputs have two. Above it: 400.
MAX_DIMENSIONS = 8

# Elements of a tensor that are looked at one by one: texts, and numbers that are not in binary form. Above it: 400.
MAX_ELEMENTS = 1 << 18

# Bytes of a body that is parsed or compressed on the event loop. Above it: in a thread, so that other requests go on.
LARGE_BODY_BYTES = 32 * 1024

# Bytes of responses over HTTP that clients have not read yet. Above it: who has been silent longest is disconnected.
MAX_UNREAD_BYTES = 1 << 30

# Connections over HTTP, three quarters of them from one address. Above it: who has been silent longest is disconnected.
MAX_CONNECTIONS = 1000

# Further connections and calls, which may ask for health and metrics only. Above it: 503.
SPARE_PLACES = 64

# Connections over gRPC. Above it: refused.
MAX_GRPC_CONNECTIONS = 4096

# Calls in flight on one connection over gRPC. Above it: they wait in the client. The server takes as many calls and
# twice --max-queue more, three quarters of them from one address. Above that: who has been silent longest is ended.
MAX_CALLS = 1024

# Seconds for which a gRPC connection may have no call, and a call no request. Then: disconnected, RESOURCE_EXHAUSTED.
GRPC_IDLE_S = 120.0

# Requests of one stream in flight. Above it: they wait in the client.
STREAM_WINDOW = 64

# Seconds of one batch. Then the engine counts as hanging: its requests are refused, and it gets no more batches.
ENGINE_TIMEOUT_S = 60.0

# At shutdown, seconds for batches that are in flight, in addition to the longest wait in the queue.
GRACE_S = 10.0

DEFAULTS = Limits()
