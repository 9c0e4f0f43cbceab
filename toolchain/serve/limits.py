"""The limits on what clients can request. docs/reference/limits.md is made from this file."""

from dataclasses import dataclass

from toolchain.errors import UsageError
from toolchain.recipe.options import flag


@dataclass(frozen=True)
class Limits:
    """The limits that options of `toolchain serve` can change.

    A request that exceeds one of them is refused before any work is done for it.
    """

    # Rows of one inference request, and of one batch. A request with more rows is refused with 400.
    max_batch: int = 64
    # Positions of one batch, padding included: its number of rows times the tokens of its longest row. A batch of long
    # rows therefore has fewer rows.
    max_tokens: int = 4096
    # Characters of one text. A request with a longer text is refused with 413.
    max_characters: int = 16_384
    # Rows that may wait in the queue. A request whose rows do not fit into the queue is refused with 503. A request to
    # /classify, /v1/embeddings or /rerank whose list has more rows than this is refused with 413.
    max_queue: int = 1024
    # Bytes of an HTTP request's body or of a gRPC message, both as it arrives and decompressed. Also the characters of
    # a request to /rerank, where the query counts once for each text. A larger HTTP request is refused with 413.
    max_body_bytes: int = 1 << 20
    # Longest wait in the queue, in seconds. A request that waits longer is refused with 503.
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                option = flag(name.removesuffix("_s").removesuffix("_bytes"))
                raise UsageError(f"{option} {value}: the value is not above zero. Give a larger number.")
        if self.max_queue < self.max_batch:
            raise UsageError(
                f"--max-queue {self.max_queue}: a request of --max-batch {self.max_batch} rows would never fit into "
                f"the queue. Give {self.max_batch} or more."
            )


# Bytes of the request line and the headers of an HTTP request together, and bytes of its trailers. A request with more
# is refused with 400.
HEAD_BYTES = 64 * 1024

# The bytes that arrive for one HTTP body may be this multiple of --max-body, because a body that is sent in small
# chunks takes several times its own size on the wire. A client that sends more is disconnected.
BODY_TIMES = 16

# Seconds for which the service goes on reading, and discards, what a client sends after the last response on its
# connection, such as the rest of a refused body. If the service closed at once, the client could lose the response.
DISCARD_S = 2.0

# Seconds that an HTTP client may take for each of these: the TLS handshake, the head of its first or next request, the
# body, and the reading of a response. A slower client is disconnected.
SILENT_S = 20.0

# Inputs of a request, and outputs that it names. A request with more is refused with 400: half a million empty inputs
# would block the event loop for seconds.
MAX_TENSORS = 16

# Dimensions of a tensor in a request, and depth of the nested lists of its JSON data. The model's inputs have two
# dimensions. A request with more than this limit is refused with 400.
MAX_DIMENSIONS = 8

# Elements of a tensor that the service must check one by one: texts, and numbers that are not sent in binary form. A
# request with more is refused with 400.
MAX_ELEMENTS = 1 << 18

# Bytes of a body that the service parses or compresses on the event loop. It handles a larger body in a thread, so that
# other requests are not delayed.
LARGE_BODY_BYTES = 32 * 1024

# Bytes of HTTP responses that clients have not read yet, over all connections. Above it, the service disconnects the
# clients that have left their responses unread for longest.
MAX_UNREAD_BYTES = 1 << 30

# HTTP connections; one address may have three quarters of them. When one more client connects, the service closes the
# connection on which it has waited longest for the client to send a request or to read a response.
MAX_CONNECTIONS = 1000

# Spare HTTP connections, and spare gRPC calls, for the time when requests are being answered on all regular ones. A
# spare one may only ask for health and metrics: its other requests, and further clients, are refused with 503.
SPARE_PLACES = 64

# gRPC connections. Further connections are refused.
MAX_GRPC_CONNECTIONS = 4096

# Calls in flight on one gRPC connection. Further calls wait in the client's gRPC library. All connections together may
# have this number of calls plus twice --max-queue, and one address three quarters of the sum. When one more call
# arrives, the service ends the call on which it has waited longest for the client, with RESOURCE_EXHAUSTED.
MAX_CALLS = 1024

# Seconds for which a gRPC connection may have no call, and for which a call may wait for its client. Then the service
# closes the connection, or ends the call with RESOURCE_EXHAUSTED.
GRPC_IDLE_S = 120.0

# Requests in flight on one gRPC stream. The service reads the next request when it has answered one of these.
STREAM_WINDOW = 64

# Seconds that an engine may take for one batch. Then it counts as hanging: the requests of the batch are refused with
# 503, and the engine gets no more batches unless it finishes this one.
ENGINE_TIMEOUT_S = 60.0

# Seconds for which a shutdown waits for batches in flight, in addition to the longest wait in the queue (--timeout).
GRACE_S = 10.0

DEFAULTS = Limits()
