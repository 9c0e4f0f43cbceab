"""Requests and answers between gRPC's messages and the service's own.

Tensors come raw (`raw_input_contents`, one element an input) or typed (`contents`), never both ways in one request;
they leave raw, as Triton's do. What is refused is worded as Triton 2.51 words it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from toolchain.serve.datatypes import BYTES, NUMPY, decode, encode, from_strings
from toolchain.serve.proto import MESSAGES
from toolchain.serve.protocol import InferRequest, InferResponse, Reason, RefusedError, Tensor
from toolchain.tensors import Array

MOST_INPUTS = 16  # a million empty ones would keep every other request waiting

CONTENTS = {
    "BOOL": ("bool_contents", "?"),
    "UINT8": ("uint_contents", "u4"),
    "UINT16": ("uint_contents", "u4"),
    "UINT32": ("uint_contents", "u4"),
    "UINT64": ("uint64_contents", "u8"),
    "INT8": ("int_contents", "i4"),
    "INT16": ("int_contents", "i4"),
    "INT32": ("int_contents", "i4"),
    "INT64": ("int64_contents", "i8"),
    "FP32": ("fp32_contents", "f4"),
    "FP64": ("fp64_contents", "f8"),
    BYTES: ("bytes_contents", "O"),
}
"""Datatype -> the field of `contents` with its elements, and the numpy type that holds any of that field."""

_Response = MESSAGES["inference.ModelInferResponse"]


def to_request(message: Any, *, left_us: int) -> InferRequest:
    """Return what a ModelInferRequest asks for.

    Args:
        message: the request.
        left_us: microseconds until the caller's deadline, 0 for none.

    Raises:
        RefusedError: its tensors are not what they say they are, or are meant to be elsewhere than in the message.
    """
    model = message.model_name
    if len(message.inputs) > MOST_INPUTS:
        raise RefusedError(
            Reason.INVALID, f"expected at most {MOST_INPUTS} inputs but got {len(message.inputs)} inputs"
        )
    for tensor in (*message.inputs, *message.outputs):
        _check_parameters(tensor)
    return InferRequest(
        model=model,
        inputs=tuple(_inputs(message, model)),
        outputs=tuple(output.name for output in message.outputs),
        version=message.model_version,
        id=message.id,
        timeout_us=_timeout_us(message, left_us),
        classes={one.name: _classes(one) for one in message.outputs if "classification" in one.parameters},
    )


def to_message(response: InferResponse) -> Any:
    """Return the ModelInferResponse of an answer."""
    message = _Response(model_name=response.model, model_version=response.version, id=response.id)
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        message.raw_output_contents.append(encode(tensor.array, tensor.datatype))
    return message


def _inputs(message: Any, model: str) -> Iterator[Tensor]:
    raw = message.raw_input_contents
    for number, tensor in enumerate(message.inputs):
        name = tensor.name
        if raw and tensor.HasField("contents"):
            raise RefusedError(
                Reason.INVALID,
                f"contents field must not be specified when using raw_input_contents for '{name}' for model '{model}'",
            )
        if number < len(raw):
            array = decode(name, tensor.datatype, tensor.shape, raw[number], model=model)
        elif tensor.HasField("contents"):
            array = _typed(tensor, model)
        else:
            raise RefusedError(
                Reason.INVALID, f"unable to find data for input tensor '{name}' for model '{model}' in request."
            )
        yield Tensor(name, tensor.datatype, array)


def _typed(tensor: Any, model: str) -> Array:
    field, wide = CONTENTS.get(tensor.datatype, ("", ""))
    if not field:  # FP16 and BF16 travel raw only; of no other is there anything to read
        return decode(tensor.name, tensor.datatype, tensor.shape, b"", model=model)
    values = getattr(tensor.contents, field)
    if tensor.datatype == BYTES:
        return from_strings(tensor.name, tensor.shape, values, model=model)
    given = np.array(values, wide)
    kept = given.astype(NUMPY[tensor.datatype], copy=False)
    if given.dtype != kept.dtype and (given != kept).any():
        raise RefusedError(
            Reason.INVALID, f"input '{tensor.name}' for model '{model}' has a number beyond {tensor.datatype}"
        )
    return decode(tensor.name, tensor.datatype, tensor.shape, kept.tobytes(), model=model)


def _check_parameters(tensor: Any) -> None:
    if "shared_memory_region" in tensor.parameters:
        region = tensor.parameters["shared_memory_region"].string_param
        raise RefusedError(Reason.NOT_FOUND, f"Unable to find shared memory region: '{region}'")


def _classes(output: Any) -> int:
    """Return how many of an output's best classes are wanted."""
    asked = output.parameters["classification"]
    if not asked.HasField("int64_param"):
        raise RefusedError(Reason.INVALID, "invalid value type for 'classification' parameter, expected int64_param")
    if asked.int64_param < 1:
        raise RefusedError(
            Reason.INVALID, f"invalid value for 'classification' parameter, expected above 0, got {asked.int64_param}"
        )
    return int(asked.int64_param)


def _timeout_us(message: Any, left_us: int) -> int:
    """Return the shorter of the request's own time-out (Triton's parameter, in microseconds) and the deadline."""
    asked = message.parameters["timeout"].int64_param if "timeout" in message.parameters else 0
    return min((limit for limit in (asked, left_us) if limit > 0), default=0)
