"""What both wires have in common: tensors of the Open Inference Protocol, and why a request is refused.

Source: the KServe V2 / Open Inference Protocol, with Triton's extensions (binary tensors, statistics, configuration).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from toolchain.tensors import Array


@dataclass(frozen=True)
class Tensor:
    """A named tensor. BYTES are an object array of `bytes`; all else has the numpy type that `datatype` names."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True)
class InferRequest:
    """One request; no `outputs` asks for all, no `version` for the newest, `timeout_us` 0 for the default time.

    Of an output in `classes`, so many of the best classes are wanted instead of its values.
    """

    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()
    version: str = ""
    id: str = ""
    timeout_us: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class InferResponse:
    """The answer to one request."""

    model: str
    version: str
    id: str
    outputs: tuple[Tensor, ...]


class Reason(Enum):
    """Why a request is refused: HTTP's status, and the name of gRPC's."""

    INVALID = 400, "INVALID_ARGUMENT"
    UNAUTHENTICATED = 401, "UNAUTHENTICATED"
    NOT_FOUND = 404, "NOT_FOUND"
    TOO_LARGE = 413, "INVALID_ARGUMENT"
    INTERNAL = 500, "INTERNAL"
    UNAVAILABLE = 503, "UNAVAILABLE"

    @property
    def http(self) -> int:
        """HTTP's status code."""
        return self.value[0]

    @property
    def grpc(self) -> str:
        """The name of gRPC's status code."""
        return self.value[1]


class RefusedError(Exception):
    """A request that is not answered; the message goes to the client, so it names no file and no code."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
