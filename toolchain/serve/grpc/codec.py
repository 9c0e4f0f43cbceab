"""Conversion of gRPC messages to requests, and of responses to gRPC messages.

The tensors of a request are either all raw (`raw_input_contents`, one element for each input) or all typed
(`contents`). The tensors of a response are raw, as Triton's are. Error messages are those of Triton 2.51.
"""

from collections.abc import Iterator
from typing import Any

from toolchain.serve.datatypes import BYTES, Declared, to_bytes
from toolchain.serve.limits import MAX_TENSORS
from toolchain.serve.proto import MESSAGES
from toolchain.serve.protocol import InferRequest, InferResponse, Tensor, invalid, no_shared_memory

# Datatype -> the field of `contents` that has its elements.
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}

_Response = MESSAGES["inference.ModelInferResponse"]


def to_request(message: Any, *, left_us: int) -> InferRequest:
    """Return the InferRequest that a gRPC message contains.

    Args:
        message: the ModelInferRequest.
        left_us: microseconds until the caller's deadline; 0 if it has none.

    Raises:
        RefusedError: a tensor does not match its datatype or shape, or is in shared memory.
    """
    model = message.model_name
    for kind, tensors in (("inputs", message.inputs), ("outputs", message.outputs)):
        if len(tensors) > MAX_TENSORS:
            raise invalid(f"expected at most {MAX_TENSORS} {kind} but got {len(tensors)} {kind}")
    for tensor in (*message.inputs, *message.outputs):
        if "shared_memory_region" in tensor.parameters:
            raise no_shared_memory(tensor.parameters["shared_memory_region"].string_param)
    return InferRequest(
        model=model,
        inputs=tuple(_inputs(message, model)),
        outputs=tuple(output.name for output in message.outputs),
        version=message.model_version,
        id=message.id,
        timeout_us=_timeout_us(message, left_us),
        classes={output.name: _classes(output) for output in message.outputs if "classification" in output.parameters},
    )


def to_message(response: InferResponse) -> Any:
    """Return a response as a ModelInferResponse message."""
    message = _Response(model_name=response.model, model_version=response.version, id=response.id)
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        message.raw_output_contents.append(to_bytes(tensor.array, tensor.datatype))
    for name, value in response.parameters.items():
        message.parameters[name].int64_param = value
    return message


def _inputs(message: Any, model: str) -> Iterator[Tensor]:
    raw = message.raw_input_contents
    for number, tensor in enumerate(message.inputs):
        name, declared = tensor.name, Declared(tensor.name, tensor.datatype, tensor.shape, model)
        if raw and tensor.HasField("contents"):
            raise invalid(
                f"contents field must not be specified when using raw_input_contents for '{name}' for model '{model}'"
            )
        if number < len(raw):
            yield declared.from_bytes(raw[number])
        elif tensor.HasField("contents"):
            yield _typed(declared, tensor.contents)
        else:
            raise invalid(f"unable to find data for input tensor '{name}' for model '{model}' in request.")


def _typed(declared: Declared, contents: Any) -> Tensor:
    datatype = declared.datatype
    # `from_bytes` refuses these: FP16 and BF16 must be sent as raw bytes, and any other datatype is unknown.
    if datatype not in CONTENTS:
        return declared.from_bytes(b"")
    values = getattr(contents, CONTENTS[datatype])
    return declared.from_strings(values) if datatype == BYTES else declared.from_numbers(values)


def _classes(output: Any) -> int:
    """Return the number of best classes that a request asks for in this output."""
    count = output.parameters["classification"]
    if not count.HasField("int64_param"):
        raise invalid("invalid value type for 'classification' parameter, expected int64_param")
    if count.int64_param < 1:
        raise invalid(f"invalid value for 'classification' parameter, expected above 0, got {count.int64_param}")
    return int(count.int64_param)


def _timeout_us(message: Any, left_us: int) -> int:
    """Return the timeout of a request in microseconds, or 0 if it has none.

    It is the shorter of the timeout in the request and `left_us`, the time until the call's deadline.
    """
    timeout_us = message.parameters["timeout"].int64_param if "timeout" in message.parameters else 0
    return min((limit for limit in (timeout_us, left_us) if limit > 0), default=0)
