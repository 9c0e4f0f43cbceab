"""Requests, responses and refusals in the one form that HTTP and gRPC share.

Source: the Open Inference Protocol (KServe V2), with Triton's extensions (binary tensors, statistics, configuration).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from toolchain.base.tensors import Array


@dataclass(frozen=True)
class Tensor:
    """A named tensor. A BYTES array has elements of type `bytes`; others have the numpy type of their `datatype`."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True)
class InferRequest:
    """An inference request: the input tensors for a model, and the outputs that the client wants."""

    model: str
    inputs: tuple[Tensor, ...]
    # Names of the requested outputs; an empty tuple requests all outputs.
    outputs: tuple[str, ...] = ()
    # The requested version of the model; empty if the client leaves the choice to the service.
    version: str = ""
    id: str = ""
    # Longest wait in the queue, in microseconds; 0 means the service's default.
    timeout_us: int = 0
    # Output -> how many of its best classes are returned instead of its values.
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class InferResponse:
    """The response to an inference request: the output tensors, and counts of rows."""

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]
    # Number of rows that were cut, because they are longer than the model reads.
    truncated_rows: int = 0
    # Number of rows that the second stage of a cascade ran; None if the model is not a cascade.
    passed_on_rows: int | None = None

    @property
    def size(self) -> int:
        """The size of the outputs, in bytes: their arrays, and the texts in them."""
        texts = (text for tensor in self.outputs if tensor.datatype == "BYTES" for text in tensor.array.flat)
        return sum(tensor.array.nbytes for tensor in self.outputs) + sum(map(len, texts))

    @property
    def parameters(self) -> dict[str, int]:
        """The parameters of the response.

        They are `truncated_rows`, if any row was cut, and `passed_on_rows`, if the model is a cascade.
        """
        cut = {"truncated_rows": self.truncated_rows} if self.truncated_rows else {}
        return cut if self.passed_on_rows is None else {**cut, "passed_on_rows": self.passed_on_rows}


class Reason(Enum):
    """The reason of a refusal, as an HTTP status code and as the name of a gRPC status code."""

    INVALID = 400, "INVALID_ARGUMENT"
    UNAUTHENTICATED = 401, "UNAUTHENTICATED"
    FORBIDDEN = 403, "PERMISSION_DENIED"
    NOT_FOUND = 404, "NOT_FOUND"
    TOO_LARGE = 413, "INVALID_ARGUMENT"
    EXHAUSTED = 503, "RESOURCE_EXHAUSTED"
    UNSUPPORTED = 501, "UNIMPLEMENTED"
    INTERNAL = 500, "INTERNAL"
    UNAVAILABLE = 503, "UNAVAILABLE"

    def __init__(self, http: int, grpc: str) -> None:
        self.http, self.grpc = http, grpc


class RefusedError(Exception):
    """The service refuses a request. The client sees the message, so it must not name files or parts of the code."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def invalid(message: str) -> RefusedError:
    """Return the refusal of a request that does not follow the protocol or does not fit the model."""
    return RefusedError(Reason.INVALID, message)


def too_large(message: str) -> RefusedError:
    """Return the refusal of a request that exceeds a limit on its size."""
    return RefusedError(Reason.TOO_LARGE, message)


def no_shared_memory(region: object) -> RefusedError:
    """Return the refusal of a tensor that is in shared memory, which the service does not support."""
    return RefusedError(Reason.NOT_FOUND, f"Unable to find shared memory region: '{str(region)[:100]}'")
