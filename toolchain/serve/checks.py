"""Checks of a request against the inputs, outputs and limits of the model.

Where Triton refuses the same request, the message is the same as Triton's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np

from toolchain.base.tensors import TEXT_INPUTS
from toolchain.checkpoint.ragged import Ragged
from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Text
from toolchain.serve.limits import Limits
from toolchain.serve.protocol import InferRequest, Reason, RefusedError, Tensor, invalid, too_large

INTEGERS = ("INT64", "INT32")
VERSION = "1"

# A function that takes a message and returns the refusal of a request with this message.
Refuse = Callable[[str], RefusedError]

# Most characters of a name from a client that a message repeats. gRPC sends messages in headers, whose size is limited.
SHOWN_CHARACTERS = 64

BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to "
    "each input shape."
)


def check_model(name: str, model: str, version: str = "") -> None:
    """Refuse a request unless it asks for the served model, `name`, in its only version.

    An empty version is allowed.

    Raises:
        RefusedError: unknown name or version (NOT_FOUND), or a version that is not a number (INVALID).
    """
    if model != name:
        raise RefusedError(Reason.NOT_FOUND, f"Request for unknown model: '{shown(model)}' is not found")
    if version in ("", VERSION):
        return
    if not (version.isascii() and version.removeprefix("-").isdecimal()):
        raise invalid(
            f"failed to get model version from specified version string '{shown(version)}' (details: stol), "
            "version should be an integral value > 0"
        )
    raise RefusedError(Reason.NOT_FOUND, f"Request for unknown model: '{name}' version {shown(version)} is not found")


def check_statistics(name: str, model: str, version: str) -> None:
    """Refuse a request for statistics unless it asks for the served model, as `check_model` does.

    The status and the message are those of Triton's statistics request.

    Raises:
        RefusedError: unknown name or version (INVALID).
    """
    try:
        check_model(name, model, version)
    except RefusedError as refused:
        if refused.reason is not Reason.NOT_FOUND:
            raise
        what = f"version is not available for model '{name}'" if model == name else f"'{shown(model)}' is not available"
        raise invalid(f"requested model {what}") from refused


def shown(name: str) -> str:
    """Return a name that a client sent, cut to SHOWN_CHARACTERS for a message."""
    return name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}..."


@dataclass(frozen=True)
class Checks:
    """The checks of requests for one model."""

    name: str
    texts_per_row: int
    # Token input -> how many values it can have: the vocabulary's size, 2 for the mask, or the number of token types.
    value_counts: dict[str, int]
    # Most tokens of a row.
    max_length: int
    pad_values: dict[str, int]
    limits: Limits
    # Output -> how many numbers a row has; None for a text.
    gives: Mapping[str, int | None]

    def outputs(self, request: InferRequest) -> tuple[str, ...]:
        """Return the names of the requested outputs without repetitions, or of all outputs if none is requested.

        Raises:
            RefusedError: the model lacks a requested output, or the request asks for the best classes of an output
                that consists of texts.
        """
        for name in request.outputs:
            if name not in self.gives:
                raise invalid(f"unexpected inference output '{shown(name)}' for model '{self.name}'")
        if texts := [name for name in request.classes if self.gives.get(name, 0) is None]:
            raise invalid(f"class result not available for output '{texts[0]}' due to unsupported type 'BYTES'")
        return tuple(dict.fromkeys(request.outputs)) or tuple(self.gives)

    def rows(self, request: InferRequest) -> list[Text] | Tokens:
        """Return the rows of a request: its texts, or its token ids without padding.

        Raises:
            RefusedError: the inputs do not fit the model.
        """
        # Refusals begin with the request's id in brackets, as those of Triton do.
        refuse = partial(_refusal, shown(request.id) or "<id_unknown>")
        given: dict[str, Tensor] = {}
        for tensor in request.inputs:
            if tensor.name in given:
                raise refuse(f"input '{shown(tensor.name)}' already exists in request")
            given[tensor.name] = tensor
        required = self._required(given)
        self._check_names(given, required, refuse)
        ordered = [given[name] for name in required]
        if required[0] in TEXT_INPUTS:
            self._check_shapes(ordered, ("BYTES",), "[-1,1]", refuse)
            return self._texts(ordered, refuse)
        self._check_shapes(ordered, INTEGERS, "[-1,-1]", refuse)
        return self._tokens(ordered, refuse)

    def check_lengths(self, texts: list[Text]) -> None:
        """Refuse texts that are too long.

        Raises:
            RefusedError: a text has more characters than the limit (TOO_LARGE).
        """
        for part in chain.from_iterable(texts):
            if len(part) > self.limits.max_characters:
                raise too_large(
                    f"a text of {len(part)} characters exceeds the maximum allowed value of "
                    f"{self.limits.max_characters} for model '{self.name}'"
                )

    def _required(self, given: Iterable[str]) -> tuple[str, ...]:
        """Return the names of the inputs that a request must have, if it has the inputs in `given`.

        They are the token inputs if it has at least one of these and no text input, else the text inputs.
        """
        names = set(given)
        has_tokens = names & set(self.value_counts) and not names & set(TEXT_INPUTS)
        return tuple(self.value_counts) if has_tokens else TEXT_INPUTS[: self.texts_per_row]

    def _check_names(self, given: dict[str, Tensor], required: tuple[str, ...], refuse: Refuse) -> None:
        if len(given) != len(required):
            missing = [name for name in required if name not in given]
            raise refuse(
                f"expected {len(required)} inputs but got {len(given)} inputs for model '{self.name}'. "
                f"Got input(s) {_listed(given)}, but missing required input(s) {_listed(missing)}. "
                "Please provide all required input(s)."
            )
        for name in given:
            if name not in required:
                raise invalid(f"unexpected inference input '{shown(name)}' for model '{self.name}'")

    def _check_shapes(self, tensors: list[Tensor], types: tuple[str, ...], shape: str, refuse: Refuse) -> None:
        for tensor in tensors:
            found = tensor.array.shape
            if tensor.datatype not in types:
                raise refuse(
                    f"inference input '{tensor.name}' data-type is '{shown(tensor.datatype)}', "
                    f"but model '{self.name}' expects '{types[0]}'"
                )
            if len(found) != 2 or (types[0] == "BYTES" and found[1] != 1):
                raise refuse(self._unexpected(tensor, shape))
        first = tensors[0].array.shape
        for tensor in tensors[1:]:
            if tensor.array.shape[0] != first[0]:
                raise refuse(f"input '{tensor.name}' batch size does not match other inputs for '{self.name}'")
            if tensor.array.shape != first:
                raise refuse(self._unexpected(tensor, _shape(first)))
        if types[0] == "BYTES" and not first[0]:
            raise refuse(
                f"expected 1 string elements for inference input '{tensors[0].name}' for model '{self.name}', got 0"
            )
        if first[0] < 1:
            raise refuse(f"inference request batch-size must be >= 1 for '{self.name}'")
        if first[0] > self.limits.max_batch:
            raise refuse(f"inference request batch-size must be <= {self.limits.max_batch} for '{self.name}'")

    def _unexpected(self, tensor: Tensor, expected: str) -> str:
        return (
            f"unexpected shape for input '{tensor.name}' for model '{self.name}'. "
            f"Expected {expected}, got {_shape(tensor.array.shape)}. {BATCH_NOTE}"
        )

    def _texts(self, tensors: list[Tensor], refuse: Refuse) -> list[Text]:
        columns = []
        for tensor in tensors:
            try:
                columns.append([value.decode() for value in tensor.array[:, 0].tolist()])
            except UnicodeDecodeError:
                raise refuse(f"{tensor.name} is not UTF-8") from None
        texts = list(zip(*columns, strict=True))
        self.check_lengths(texts)
        return texts

    def _tokens(self, tensors: list[Tensor], refuse: Refuse) -> Tokens:
        length = tensors[0].array.shape[1]
        if length > self.max_length:
            raise refuse(
                f"input '{tensors[0].name}' has {length} tokens per row, and model '{self.name}' takes up to "
                f"{self.max_length}"
            )
        for tensor in tensors:
            self._check_range(tensor, refuse)
        mask = next(tensor.array for tensor in tensors if tensor.name == "attention_mask")
        lengths = mask.sum(axis=1)
        real = np.arange(length) < lengths[:, None]
        # Engines treat other masks differently, and a row without tokens has no correct result.
        if not lengths.all() or (mask != real).any():
            raise refuse(
                f"each row of input 'attention_mask' must be one or more 1s followed only by 0s for model '{self.name}'"
            )
        starts = np.concatenate([[0], lengths.cumsum()])
        columns = {tensor.name: Ragged(tensor.array[real].astype(np.int32), starts) for tensor in tensors}
        return Tokens(columns, self.pad_values)

    def _check_range(self, tensor: Tensor, refuse: Refuse) -> None:
        count, values = self.value_counts[tensor.name], tensor.array
        wrong = (values < 0) | (values >= count)
        if wrong.any():
            raise refuse(
                f"input '{tensor.name}' has the value {int(values[wrong][0])}, which is outside the range "
                f"[0,{count - 1}] of model '{self.name}'"
            )


def _refusal(request_id: str, message: str) -> RefusedError:
    return invalid(f"[request id: {request_id}] {message}")


def _listed(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{shown(name)}'" for name in names) + "]"


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
